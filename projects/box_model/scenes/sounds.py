"""The sounds that scenes are mixed from: which there are, what they are, in which split.

A sound is one recording in a package, or one seed for the soundfont. Recordings that have something
in common (a voice, a drum, a piece of music) are a group, and no group is in two splits. What the
soundfont plays has other keys, or other drums, in each split.
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
"""What goes into the smaller splits, of the classes that have enough groups."""
_LEAST_GROUPS = {"test": 2, "validation": 4}
_RENDERS = {"train": 21, "validation": 3, "test": 6}
"""Renders of each class that a soundfont can play, where it has something to play in that split."""


class Recording(NamedTuple):
    """A recording in a Debian package.

    Attributes:
      package: the package's name.
      path: the file in it, "usr/..."; of one in an archive, "ARCHIVE!/FILE".
      labels: AudioSet classes, the one that says most first; none is above another.
      group: what it has in common with others.
      licence: of the package, in short.
      teacher_rank: the class's place among what YAMNet hears, from 1; "" where nobody asked.
    """

    package: str
    path: str
    labels: tuple[str, ...]
    group: str
    licence: str
    teacher_rank: str


class Sound(NamedTuple):
    """A sound that scenes can hold.

    Attributes:
      name: "package/path", or "soundfont/CLASS/SPLIT/NUMBER".
      labels: AudioSet classes, the one that says most first.
      group: see the module.
      split: the one that it must be in, or "" where that follows from its group.
    """

    name: str
    labels: tuple[str, ...]
    group: str
    split: str = ""

    @property
    def label(self) -> str:
        """The class that it stands for among others."""
        return self.labels[0]


def read_recordings(path: Path = RECORDINGS) -> list[Recording]:
    """The recordings that are used, in the order of the table."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file)
        return [Recording(**row | {"labels": tuple(row["labels"].split(";"))}) for row in rows]


def all_sounds() -> list[Sound]:
    """Every sound, recordings first."""
    recorded = [
        Sound(f"{one.package}/{one.path}", one.labels, one.group) for one in read_recordings()
    ]
    played = [
        Sound(name, (voice.label,), name, voice.split)
        for voice in read_voices()
        for number in range(_RENDERS[voice.split])
        for name in [f"soundfont/{voice.label}/{voice.split}/{number}"]
    ]
    return recorded + played


@functools.cache
def _classes_above() -> Mapping[str, Sequence[str]]:
    with CLASSES_ABOVE.open(encoding="utf-8", newline="") as file:
        return {row["label"]: row["above"].split(";") for row in csv.DictReader(file)}


@functools.cache
def with_classes_above(label: str) -> tuple[str, ...]:
    """A class and all that AudioSet's ontology has above it: a "Moo" is of an "Animal" too."""
    found = [label]
    for above in _classes_above().get(label, ()):
        found += [name for name in with_classes_above(above) if name not in found]
    return tuple(found)


@functools.cache
def class_indices(labels: tuple[str, ...]) -> tuple[int, ...]:
    """The places of classes, and of all above them, among AudioSet's; each once, ascending."""
    names = {name for label in labels for name in with_classes_above(label)}
    return tuple(index for index, known in enumerate(audioset_labels()) if known.name in names)


def split_sounds(sounds: Iterable[Sound]) -> dict[str, list[Sound]]:
    """Sounds by split, each in the given order.

    Of each class whole groups go into the smaller splits, as far as it has enough of them; which
    ones follows from the names of all. The others are only learned from. Sounds that must be in a
    split are.
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
    """The split of each group of one class."""
    # In an order that has nothing to do with the alphabet, which sorts like to like.
    waiting = sorted(groups, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    total = len(waiting)
    assigned: dict[str, str] = {}
    for split, share in _SHARES.items():
        if total >= _LEAST_GROUPS[split]:
            count = max(1, round(total * share))
            assigned |= dict.fromkeys(waiting[:count], split)
            waiting = waiting[count:]
    return assigned | dict.fromkeys(waiting, "train")
