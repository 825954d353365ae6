"""Lists the sounds of the scenes, with their classes and splits.

A sound is a recording in a package or repository, or one seed of the soundfont. Recordings that
share something (a voice, a drum, a piece of music) are a group, and no group is in two splits. The
soundfont plays other keys, or other drums, in each split.
"""

import csv
import functools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from projects.box_model.scenes.soundfont import read_voices
from sat_jax.labels import audioset_labels

_DATA = Path(__file__).parent.parent / "data"
RECORDINGS, CLASSES_ABOVE = _DATA / "clips.csv", _DATA / "classes_above.csv"
SPLITS = ("train", "validation", "test")

_RENDERS = {"train": 21, "validation": 3, "test": 6}
"""Sounds of the soundfont per class, where it has keys for that split."""


class Recording(NamedTuple):
    """A recording in a Debian package or a repository.

    Attributes:
      source: name of the package or repository.
      path: path in it, "ARCHIVE!/FILE" in an archive.
      labels: AudioSet classes, the most specific one first; none is a parent of another.
      group: group of recordings that share something.
      licence: licence of the recording, or else of its package, in short.
      teacher_rank: rank of the class among a teacher's scores, from 1; "" if not measured.
      split: one of `SPLITS`, the same for the whole group.
      credit: origin and author; "" if the package names them.
    """

    source: str
    path: str
    labels: tuple[str, ...]
    group: str
    licence: str
    teacher_rank: str
    split: str
    credit: str


class Sound(NamedTuple):
    """A sound of the scenes.

    Attributes:
      name: "source/path", or "soundfont/CLASS/SPLIT/NUMBER".
      labels: AudioSet classes, the most specific one first.
      group: see the module.
      split: one of `SPLITS`.
    """

    name: str
    labels: tuple[str, ...]
    group: str
    split: str

    @property
    def label(self) -> str:
        """The class by which it is drawn and split."""
        return self.labels[0]


def read_recordings(path: Path = RECORDINGS) -> list[Recording]:
    """Reads the recordings, in the order of the table."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file)
        return [Recording(**row | {"labels": tuple(row["labels"].split(";"))}) for row in rows]


def all_sounds() -> list[Sound]:
    """Returns all sounds, recordings first."""
    recorded = [
        Sound(f"{one.source}/{one.path}", one.labels, one.group, one.split)
        for one in read_recordings()
    ]
    played = [
        Sound(name, (voice.label,), name, voice.split)
        for voice in read_voices()
        for number in range(_RENDERS[voice.split])
        for name in [f"soundfont/{voice.label}/{voice.split}/{number}"]
    ]
    return recorded + played


def is_played(sound: Sound) -> bool:
    """Whether the soundfont plays it; else it is a recording."""
    return sound.name.startswith("soundfont/")


@functools.cache
def _parents() -> Mapping[str, Sequence[str]]:
    with CLASSES_ABOVE.open(encoding="utf-8", newline="") as file:
        return {row["label"]: row["above"].split(";") for row in csv.DictReader(file)}


@functools.cache
def with_parents(label: str) -> tuple[str, ...]:
    """Returns a class and all its parents in AudioSet's ontology: "Moo", ..., "Animal"."""
    found = [label]
    for parent in _parents().get(label, ()):
        found += [name for name in with_parents(parent) if name not in found]
    return tuple(found)


@functools.cache
def class_indices(labels: tuple[str, ...]) -> tuple[int, ...]:
    """Returns the AudioSet indices of classes and all their parents, ascending."""
    names = {name for label in labels for name in with_parents(label)}
    return tuple(index for index, known in enumerate(audioset_labels()) if known.name in names)


def split_sounds(sounds: Iterable[Sound]) -> dict[str, list[Sound]]:
    """Returns the sounds of each of `SPLITS`, in the given order."""
    by_split: dict[str, list[Sound]] = {split: [] for split in SPLITS}
    for sound in sounds:
        by_split[sound.split].append(sound)
    return by_split
