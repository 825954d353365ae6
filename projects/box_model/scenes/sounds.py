"""Lists the sounds of the scenes, with their classes and splits.

A sound is a recording in a package or repository, or one seed of the soundfont. Recordings that
share something (a voice, a drum, a piece of music) are a group, and no group is in two splits. The
soundfont plays other keys, or other drums, in each split.
"""

import collections
import csv
import functools
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from projects.box_model.scenes.soundfont import read_voices
from sat_jax.labels import audioset_labels

_DATA = Path(__file__).parent.parent / "data"
RECORDINGS, CLASSES_ABOVE = _DATA / "clips.csv", _DATA / "classes_above.csv"
SPLITS = ("train", "validation", "test")

_SHARES = {"test": 0.2, "validation": 0.1}
"""Shares of the smaller splits, for classes that have enough groups."""
_LEAST_GROUPS = {"test": 2, "validation": 4}
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
      teacher_rank: rank of the class among YAMNet's scores, from 1; "" if not measured.
      credit: origin and author; "" if the package names them.
    """

    source: str
    path: str
    labels: tuple[str, ...]
    group: str
    licence: str
    teacher_rank: str
    credit: str


class Sound(NamedTuple):
    """A sound of the scenes.

    Attributes:
      name: "source/path", or "soundfont/CLASS/SPLIT/NUMBER".
      labels: AudioSet classes, the most specific one first.
      group: see the module.
      split: its split, or "" if that follows from the group.
    """

    name: str
    labels: tuple[str, ...]
    group: str
    split: str = ""

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
        Sound(f"{one.source}/{one.path}", one.labels, one.group) for one in read_recordings()
    ]
    played = [
        Sound(name, (voice.label,), name, voice.split)
        for voice in read_voices()
        for number in range(_RENDERS[voice.split])
        for name in [f"soundfont/{voice.label}/{voice.split}/{number}"]
    ]
    return recorded + played


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
    """Assigns sounds to splits, and returns them by split, in the given order.

    Of each class with enough groups, whole groups go into the smaller splits; a hash of their names
    selects them. All other sounds are for training. A sound with a split keeps it.
    """
    sounds = list(sounds)
    groups = collections.defaultdict[str, set[str]](set)
    for sound in sounds:
        if not sound.split:
            groups[sound.label].add(sound.group)
    split_of: dict[str, str] = {}
    for label in sorted(groups):
        split_of |= _assign(groups[label] - split_of.keys())
    by_split: dict[str, list[Sound]] = {split: [] for split in SPLITS}
    for sound in sounds:
        by_split[sound.split or split_of[sound.group]].append(sound)
    return by_split


def _assign(groups: Iterable[str]) -> dict[str, str]:
    """Returns the split of each group of a class."""
    # Not in alphabetical order, which puts similar groups together.
    waiting = sorted(groups, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    total = len(waiting)
    assigned: dict[str, str] = {}
    for split, share in _SHARES.items():
        if total >= _LEAST_GROUPS[split]:
            count = max(1, round(total * share))
            assigned |= dict.fromkeys(waiting[:count], split)
            waiting = waiting[count:]
    return assigned | dict.fromkeys(waiting, "train")
