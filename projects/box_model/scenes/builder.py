"""The TFDS builder of the scenes, with tables of onsets and offsets."""

import csv
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import tensorflow_datasets as tfds
from etils import epath
from tqdm import tqdm

from data_pipeline.sources.strong_labels import LAYOUTS
from data_pipeline.sources.tfds.building import (
    Example,
    OrderedExampleWriter,
    clip_example,
    clip_features,
)
from projects.box_model.scenes.places import read_places
from projects.box_model.scenes.scenes import SOLO, Mixer, Read, Scene, to_clip
from projects.box_model.scenes.sounds import SPLITS, Sound, class_indices, is_played
from sat_jax.labels import audioset_labels
from sat_jax.runtime.threads import map_ahead

SOUNDS = {"validation": "sounds_validation", "test": "sounds_test"}
"""Splits of held-out recordings as they are."""


class PkgAudio(tfds.core.GeneratorBasedBuilder):
    """Scenes in the splits train, validation and test, which share no sound.

    The split solo has scenes of one training source each; sounds_validation and sounds_test have
    the recordings of these scenes as they are.
    """

    name = "pkg_audio"
    # TFDS downloads nothing here. The empty table keeps it from searching for checksums.
    url_infos: ClassVar[dict[str, Any]] = {}
    VERSION = tfds.core.Version("2.1.0")
    RELEASE_NOTES: ClassVar[dict[str, str]] = {
        "2.1.0": "Without seven recordings that are copies of clips of ESC-10.",
        "2.0.0": "Half of the scenes are related; all classes are drawn alike; new names.",
        "1.2.0": "No copies in two splits, nothing of ESC-10; splits play other notes.",
        "1.1.0": "More packages; copies of whole recordings are in one split.",
    }

    def __init__(
        self,
        *,
        sounds: Mapping[str, Sequence[Sound]] | None = None,
        read: Read | None = None,
        counts: Mapping[str, int] | None = None,
        workers: int = 2,
        progress: bool = False,
        **kwargs: Any,
    ) -> None:
        """Makes a builder; mixes nothing yet.

        Args:
          sounds: sounds of each split. Without them, an existing dataset can be read.
          read: returns a sound's samples; called from several threads.
          counts: number of scenes in each split, solo too.
          workers: threads that mix.
          progress: whether to show progress bars on a terminal.
          **kwargs: see `tfds.core.GeneratorBasedBuilder`.
        """
        super().__init__(**kwargs)
        self._sounds, self._read, self._counts = sounds, read, counts
        self._workers, self._progress = workers, progress

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="Scenes of ten seconds, mixed from recordings in packages.",
            features=clip_features(id_doc="<split>_<place or random>_<number>"),
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        del dl_manager
        mixers = {split: self._mixer(split) for split in SPLITS}
        mixes = {split: mixer.mix for split, mixer in mixers.items()}
        mixes[SOLO] = mixers["train"].mix_solo
        scenes = {split: self._generate_examples(split, mix) for split, mix in mixes.items()}
        return scenes | {name: self._generate_sounds(split) for split, name in SOUNDS.items()}

    def _mixer(self, split: str) -> Mixer:
        assert self._sounds is not None and self._read is not None
        return Mixer(split, self._sounds[split], read_places(), self._read)

    def _generate_sounds(self, split: str) -> Iterator[tuple[str, Example]]:
        assert self._sounds is not None and self._read is not None
        for sound in self._sounds[split]:
            if not is_played(sound):
                samples = to_clip(self._read(sound))
                yield sound.name, clip_example(sound.name, samples, class_indices(sound.labels))

    def _generate_examples(
        self, split: str, mix: Callable[[int], Scene]
    ) -> Iterator[tuple[str, Example]]:
        assert self._counts is not None
        count = self._counts[split]
        path = epath.Path(os.fspath(self.data_path / strong_name(split)))
        with path.open("w") as file:
            events = csv.writer(file, delimiter="\t", lineterminator="\n")
            events.writerow(LAYOUTS[1])
            workers = self._workers
            scenes = map_ahead(mix, range(count), workers=workers, ahead=4 * workers)
            bar = tqdm(
                scenes, split, count, unit=" scenes", disable=None if self._progress else True
            )
            for scene in bar:
                events.writerows(_rows(scene))
                yield scene.name, clip_example(scene.name, scene.samples, scene.labels)

    def _example_writer(self) -> tfds.core.ExampleWriter:
        return OrderedExampleWriter(file_format=self.info.file_format)


def strong_name(split: str) -> str:
    """Returns the name of the file with onsets and offsets in the dataset's folder."""
    return f"strong_{split}.tsv"


def _rows(scene: Scene) -> Iterator[tuple[str, ...]]:
    labels = audioset_labels()
    if not scene.events:
        yield scene.name, "", "", ""  # A scene without events.
    for event in scene.events:
        label = labels[event.class_index].name
        yield scene.name, f"{event.onset:.4f}", f"{event.offset:.4f}", label
