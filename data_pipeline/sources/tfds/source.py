"""Clips of any prepared TFDS dataset with audio and class labels.

TFDS prepares AudioSet by data_pipeline.audioset, and others, such as speech_commands, by itself.
"""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from etils import epath

from data_pipeline.batches.windows import Fill, Plan
from data_pipeline.sources.bounds import SAMPLE_RATE, window_bounds
from data_pipeline.sources.class_finder import ClassFinder
from data_pipeline.sources.source import ClipTable
from data_pipeline.sources.tfds.index import Decoder, Part, Places, find_clips
from sat_jax.audio.mono import SoundInfo, mono_blocks
from sat_jax.errors import SatError

_INT16_SCALE = np.float32(1 / 32_768)


class TfdsSource:
    """A split of a dataset whose records can be read in any order, from any thread."""

    def __init__(
        self,
        name: str,
        split: str,
        data_dir: str | os.PathLike[str] | None = None,
        *,
        audio: str | None = None,
        labels: str | None = None,
        ids: str | None = None,
        sample_rate: int | None = None,
    ) -> None:
        """Opens a dataset, and finds its clips by one pass over it the first time.

        Args:
          name: as TFDS calls it, such as "audioset" or "speech_commands:0.0.3"; or the folder with
            its dataset_info.json.
          split: such as "eval", "balanced+unbalanced" or "train[:10%]".
          data_dir: folder of TFDS datasets; None is TFDS's own.
          audio: feature with the samples; by default the one that is an audio feature.
          labels: feature with a class or a list of classes; by default "labels" or "label".
          ids: feature with names for the clips; by default "id" if there is one, else the file and
            the number in it.
          sample_rate: of the samples, Hz, if the dataset does not tell.

        Raises:
          SatError: there is no such dataset or split, its files are not TFRecord files or damaged,
            or its features can't be used.
        """
        self.name = f"{name}:{split}"
        builder = _open(name, data_dir)
        features = dict(builder.info.features.items())
        audio = audio or _find_audio(features, self.name)
        labels = labels or _first_of(("labels", "label"), features, self.name)
        ids = ids or ("id" if "id" in features else None)
        self.audio_feature = _checked_audio(features, audio, self.name)
        self.audio_name = audio
        self.label_names = _label_names(features, labels, self.name)
        self.sample_rate = _sample_rate(self.audio_feature, sample_rate, self.name)
        self.clips: ClipTable
        self.records: Places
        self.clips, self.records = find_clips(
            _parts(builder, split),
            self._decoder(features, labels, ids),
            folder=os.fspath(builder.data_dir),
            name=self.name,
        )

    def use_classes(self, label_names: Sequence[str]) -> None:
        """Makes the clips' labels those of a model: classes are found by their names.

        Args:
          label_names: the model's class names in output order. A dataset without names has class i
            where the model has class i.

        Raises:
          SatError: the model lacks a class of a clip.
        """
        used, places = np.unique(self.clips.label_indices, return_inverse=True)
        finder = ClassFinder(label_names)
        theirs = [self.label_names[i] if self.label_names else str(i) for i in used]
        ours = [finder.get(name, self.name) for name in theirs]
        if None in ours:
            lacking = theirs[ours.index(None)]
            raise SatError(
                f"{self.name} has a class {lacking!r}, which the model lacks: choose a model with "
                "its classes, or begin one whose --labels FILE names it"
            )
        starts = self.clips.label_starts
        indices = np.asarray(ours, np.int32)[places] if ours else self.clips.label_indices
        # In each clip ascending, as before.
        clip_of_label = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
        order = np.lexsort((indices, clip_of_label))
        self.clips = self.clips._replace(label_indices=indices[order])

    def path_of(self, index: int) -> str:
        """The TFRecord file that a clip is in."""
        return os.fspath(self.records.files[self.records.file_of_clip[index]])

    def _decoder(self, features: Any, labels: str, ids: str | None) -> Decoder:
        names = [labels] if ids is None else [labels, ids]
        described = tfds.features.FeaturesDict({name: features[name] for name in names})

        def describe(example: bytes) -> tuple[str | None, Sequence[int]]:
            values = described.deserialize_example_np(example)
            classes = np.unique(np.asarray(values[labels], np.int64))
            if ids is None:
                return None, classes.tolist()
            found = values[ids]
            return found.decode() if isinstance(found, bytes) else str(found), classes.tolist()

        return Decoder(
            key=f"{self.audio_name} {labels} {ids}",
            audio=self.audio_name,
            is_raw=is_raw(self.audio_feature),
            others=names,
            describe=describe,
            count_samples=lambda example: len(self._decode(example)),
        )

    def read(
        self,
        index: int,
        *,
        num_samples: int | None = None,
        place: float = 0.0,
        start: float | None = None,
    ) -> np.ndarray:
        """Reads a window of a clip, see `data_pipeline.sources.source.Source.read`."""
        name = f"{self.name}, {self.clips.ids[index]}"
        if self.records.audio[index] < 0 or self.sample_rate != SAMPLE_RATE:
            sound = self._read_all(index, name)
            first, last = window_bounds(
                len(sound), num_samples=num_samples, place=place, start=start, name=name
            )
            return sound[first:last]
        length = int(self.records.num_samples[index])
        first, last = window_bounds(
            length, num_samples=num_samples, place=place, start=start, name=name
        )
        data = self._read_bytes(
            index, int(self.records.audio[index]) + 2 * first, 2 * (last - first)
        )
        return np.frombuffer(data, "<i2").astype(np.float32) * _INT16_SCALE

    def read_windows(
        self,
        plans: Callable[[int], Plan],
        start_step: int,
        *,
        num_samples: int,
        fill: Fill,
        workers: int = 4,
    ) -> Iterator[tuple[Plan, np.ndarray]]:
        """Reads windows by tf.data, see `data_pipeline.sources.tfds.reader.read_windows`.

        Samples of another rate than the model's are resampled, for which threads read them.
        """
        if self.sample_rate == SAMPLE_RATE:
            from data_pipeline.sources.tfds.reader import read_windows as read
        else:
            from data_pipeline.batches.reader import read_by_threads as read  # type: ignore[assignment]
        return read(self, plans, start_step, num_samples=num_samples, fill=fill, workers=workers)

    def _read_all(self, index: int, name: str) -> np.ndarray:
        start, end = int(self.records.start[index]), int(self.records.end[index])
        sound = self._decode(self._read_bytes(index, start, end - start))
        sound = sound.reshape(len(sound), -1)
        scaled = sound.astype(np.float32)
        if np.issubdtype(sound.dtype, np.integer):
            scaled *= _INT16_SCALE
        source = SoundInfo(name=name, rate=self.sample_rate, channels=sound.shape[1])
        blocks = mono_blocks([scaled], source, sample_rate=SAMPLE_RATE, channel=None)
        return np.concatenate(list(blocks))

    def _decode(self, example: bytes) -> np.ndarray:
        features = tfds.features.FeaturesDict({self.audio_name: self.audio_feature})
        return np.asarray(features.deserialize_example_np(example)[self.audio_name])

    def _read_bytes(self, index: int, start: int, size: int) -> bytes:
        path = self.records.files[self.records.file_of_clip[index]]
        try:
            with epath.Path(path).open("rb") as file:
                file.seek(start)
                data = file.read(size)
        except OSError as error:
            raise SatError(f"{path}: cannot be read: {error}") from error
        if len(data) < size:
            raise SatError(f"{path}: ends before clip {self.clips.ids[index]}: prepare it again")
        return data


def is_raw(feature: Any) -> bool:
    """Whether a feature's bytes are 16-bit samples of one channel and nothing else."""
    encoding = feature.to_json_content().encoding.lower()
    return encoding == "bytes" and feature.np_dtype == np.int16 and feature.shape == (None,)


def _open(name: str, data_dir: Any) -> Any:
    try:
        if os.path.isfile(os.path.join(name, "dataset_info.json")):
            builder = tfds.builder_from_directory(name)
        else:
            builder = tfds.builder(name, data_dir=data_dir)
    # TFDS raises whatever its parts raise where a name or version can't be found.
    except Exception as error:
        # TFDS goes on to list all datasets that it knows.
        reason = " ".join(str(error).partition("Available datasets")[0].split())[:200]
        raise SatError(
            f"TFDS cannot open {name!r} {_whereabouts(name, data_dir)}: {reason}"
        ) from error
    if not builder.is_prepared():
        raise SatError(f"{name} is not prepared in {builder.data_dir}: prepare it, or say data_dir")
    if builder.info.file_format.value != "tfrecord":
        raise SatError(
            f"{name} has files of the format {builder.info.file_format.value}, which is not read "
            "here: prepare it with file_format='tfrecord'"
        )
    return builder


def _whereabouts(name: str, data_dir: Any) -> str:
    """Where TFDS looked, and what of the dataset lies there."""
    folder = os.fspath(data_dir or tfds.core.constants.DATA_DIR)
    at = os.path.join(folder, name.partition(":")[0])
    inside = sorted(os.listdir(at)) if os.path.isdir(at) else []
    versions = [entry for entry in inside if re.fullmatch(r"\d+\.\d+\.\d+", entry)]
    there = f"versions {', '.join(versions)} of it lie" if versions else "nothing of it lies"
    return f"(in {folder}, said by --data_dir, {there})"


def _parts(builder: Any, split: str) -> list[Part]:
    try:
        instructions = builder.info.splits[split].file_instructions
    except (KeyError, ValueError, AssertionError) as error:
        raise SatError(
            f"{builder.name} has no split {split!r}, but {', '.join(builder.info.splits)}"
        ) from error
    return [Part(os.fspath(part.filename), part.skip, part.take) for part in instructions]


def _find_audio(features: Any, name: str) -> str:
    found = [key for key in features if isinstance(features[key], tfds.features.Audio)]
    if len(found) != 1:
        raise SatError(
            f"{name} has {len(found)} audio features among {', '.join(sorted(features))}: "
            "name one by --columns AUDIO,LABELS"
        )
    return found[0]


def _first_of(names: Sequence[str], features: Any, name: str) -> str:
    for wanted in names:
        if wanted in features:
            return wanted
    raise SatError(
        f"{name} has no labels among {', '.join(sorted(features))}: name them by --columns "
        "AUDIO,LABELS"
    )


def _checked_audio(features: Any, key: str, name: str) -> Any:
    feature = features.get(key)
    if not isinstance(feature, tfds.features.Tensor) or len(feature.shape) not in (1, 2):
        raise SatError(
            f"{name} has no samples in a feature {key!r}, but {', '.join(sorted(features))}: name "
            "one by --columns AUDIO,LABELS"
        )
    if getattr(feature.to_json_content(), "lazy_decode", False):
        raise SatError(f"{name} holds encoded audio: prepare it with samples (lazy_decode=False)")
    kind = feature.np_dtype
    if kind not in (np.int16, np.int32, np.int64, np.float32, np.float64):
        raise SatError(f"{name} has samples of type {kind}: needed are 16-bit or float samples")
    return feature


def _label_names(features: Any, key: str, name: str) -> list[str] | None:
    """Names of the classes, if the dataset has any."""
    feature = features.get(key)
    feature = getattr(feature, "feature", feature)  # Of a sequence, what it is made of.
    if isinstance(feature, tfds.features.ClassLabel):
        return list(feature.names) if feature.num_classes else None
    if (
        not isinstance(feature, tfds.features.Tensor)
        or feature.shape != ()
        or not np.issubdtype(feature.np_dtype, np.integer)
    ):
        raise SatError(
            f"{name} has no class or list of classes in a feature {key!r}, but "
            f"{', '.join(sorted(features))}: name one by --columns AUDIO,LABELS"
        )
    return None


def _sample_rate(feature: Any, given: int | None, name: str) -> int:
    rate = given or getattr(feature, "sample_rate", None)
    if not rate:
        raise SatError(
            f"{name} does not tell the rate of its samples: prepare it as an audio feature with a "
            "sample_rate"
        )
    return int(rate)
