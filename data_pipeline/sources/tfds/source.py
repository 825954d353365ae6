"""Clips of any prepared TFDS dataset with audio and class labels.

`sat-jax prepare` makes AudioSet; TFDS itself makes others, such as speech_commands.
"""

import contextlib
import copy
import os
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from data_pipeline.sources.source import (
    INT16_SCALE,
    SAMPLE_RATE,
    ClipTable,
    warn_of_first,
    window_bounds,
)
from data_pipeline.sources.tables import ClassFinder
from data_pipeline.sources.tfds.features import ClipFeatures, open_builder
from data_pipeline.sources.tfds.index import Places, find_clips, read_bytes, split_parts
from data_pipeline.sources.tfds.records import BadRecord
from sat_jax.audio.mono import SoundInfo, mono_blocks
from sat_jax.errors import SatError

Contents = Callable[[int, int, int], memoryview]
"""Function from a clip, the first byte in its file and a number of bytes to these bytes."""


class TfdsSource:
    """A split of a dataset, whose records can be read in any order and from any thread.

    Attributes:
      name: "NAME:SPLIT", for messages.
      clips: names and labels.
      places: where the clips lie in the TFRecord files.
      features: the audio, labels and id of an example.
    """

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
        """Opens a dataset. The first time, one pass over its files finds the clips.

        Args:
          name: TFDS's name, such as "audioset" or "speech_commands:0.0.3"; or the folder with its
            dataset_info.json.
          split: such as "eval", "balanced+unbalanced" or "train[:10%]".
          data_dir: folder of TFDS datasets; None is TFDS's own.
          audio: feature with the samples; None is the only audio feature.
          labels: feature with a class or a list of classes; None is "labels" or "label".
          ids: feature with names of clips; None is "id" if there is one. Without, clips are named
            by file and number.
          sample_rate: of the samples, Hz, if the dataset lacks it.

        Raises:
          SatError: the dataset or split does not exist, its files are not TFRecord files or
            damaged, or its features can't be used.
        """
        with contextlib.suppress(RuntimeError):  # TensorFlow is in use already.
            tf.config.set_visible_devices([], "GPU")  # GPU memory is for training.
        self.name = f"{name}:{split}"
        builder = open_builder(name, data_dir)
        self.features = ClipFeatures(
            dict(builder.info.features.items()),
            self.name,
            audio=audio,
            labels=labels,
            ids=ids,
            sample_rate=sample_rate,
        )
        self.clips: ClipTable
        self.places: Places
        self._contents: Contents | None = None
        self.clips, self.places = find_clips(
            split_parts(builder, split),
            self.features,
            folder=os.fspath(builder.data_dir),
            name=self.name,
        )

    def use_classes(self, label_names: Sequence[str]) -> None:
        """Converts the clips' labels to a model's classes, by name.

        Args:
          label_names: the model's class names in output order. Without names in the dataset, its
            class i is the model's class i.

        Raises:
          SatError: the model lacks a class of a clip.
        """
        used, positions = np.unique(self.clips.label_indices, return_inverse=True)
        finder = ClassFinder(label_names)
        names = self.features.label_names
        theirs = [names[index] if names else str(index) for index in used]
        ours = [finder.get(name, self.name) for name in theirs]
        if None in ours:
            missing = theirs[ours.index(None)]
            raise SatError(
                f"{self.name}: the model has no class {missing!r}: choose a model with this class, "
                "or train one with --labels FILE"
            )
        starts = self.clips.label_starts
        indices = np.asarray(ours, np.int32)[positions] if ours else self.clips.label_indices
        # Ascending within each clip, as before.
        clip_of_label = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
        order = np.lexsort((indices, clip_of_label))
        self.clips = self.clips._replace(label_indices=indices[order])

    def path_of(self, index: int) -> str:
        """Returns the TFRecord file of a clip."""
        return os.fspath(self.places.files[self.places.file_of_clip[index]])

    def read(
        self,
        index: int,
        *,
        num_samples: int | None = None,
        place: float = 0.0,
        start: float | None = None,
    ) -> np.ndarray:
        """Reads a window of a clip, see `data_pipeline.sources.source.Source.read`.

        Reads only the window's bytes if samples are stored as bytes at 16 kHz, else the record.
        The checksums of records are not verified.
        """
        name = f"{self.name}, {self.clips.ids[index]}"

        def bounds(length: int) -> tuple[int, int]:
            return window_bounds(
                length, num_samples=num_samples, place=place, start=start, name=name
            )

        if self.features.sample_rate != SAMPLE_RATE:
            sound = self._to_mono(self._read_record(index, name), name)
            first, last = bounds(len(sound))
            return sound[first:last]
        first, last = bounds(int(self.places.num_samples[index]))
        audio = int(self.places.audio[index])
        if audio < 0:
            return self._to_mono(self._read_record(index, name)[first:last], name)
        data = self._read_bytes(index, audio + 2 * first, 2 * (last - first))
        window = np.frombuffer(data, "<i2").astype(np.float32)
        window *= INT16_SCALE
        return window

    def _read_record(self, index: int, name: str) -> np.ndarray:
        """Reads the samples of a record as stored: [s] or [s, channels]."""
        start, end = int(self.places.start[index]), int(self.places.end[index])
        record = bytes(self._read_bytes(index, start, end - start))
        try:
            return self.features.samples(record)
        except BadRecord as error:
            path = self.path_of(index)
            raise SatError(f"{path} is damaged at {name}: {error}: prepare it again") from error

    def _to_mono(self, sound: np.ndarray, name: str) -> np.ndarray:
        """Converts samples as stored to float32 [s], mono at 16 kHz."""
        scaled = sound.reshape(len(sound), -1).astype(np.float32)
        if np.issubdtype(sound.dtype, np.integer):
            scaled *= INT16_SCALE
        info = SoundInfo(name=name, rate=self.features.sample_rate, channels=scaled.shape[1])
        blocks = mono_blocks(
            [scaled], info, sample_rate=SAMPLE_RATE, channel=None, warn=warn_of_first
        )
        return np.concatenate(list(blocks))

    def _read_bytes(self, index: int, start: int, size: int) -> bytes | memoryview:
        if self._contents is not None:
            return self._contents(index, start, size)
        return read_bytes(self.path_of(index), start, size)

    def reading_from(self, contents: Contents) -> "TfdsSource":
        """Returns this source, with another place for the bytes of its files."""
        source = copy.copy(self)
        source._contents = contents
        return source
