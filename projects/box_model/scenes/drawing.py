"""Draws the sounds of scenes: any of a split, or some that are heard at one place.

Classes with few sounds are drawn as often as those with many.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, TypeVar

import numpy as np

from projects.box_model.scenes.places import Place
from projects.box_model.scenes.sounds import Sound, with_parents

_Item = TypeVar("_Item")

_KINDS = {"Speech": 0.1, "Music": 0.1, "instrument": 0.2, "other": 0.6}
"""Shares of the kinds of classes in random scenes."""
_BACKGROUNDS = (0.65, 0.35)
_FOREGROUNDS = (0.2, 0.35, 0.3, 0.15)
"""Shares of related scenes with 1, 2, ... such sources."""

Source = Sequence[Sound]
"""The sounds of one class in one group: the barks of one dog."""


class Cast(NamedTuple):
    """What is heard in a related scene.

    Attributes:
      place: name of the place.
      backgrounds: sounds that go on.
      foregrounds: sources that come and go.
    """

    place: str
    backgrounds: Sequence[Sound]
    foregrounds: Sequence[Source]


class SoundPicker:
    """Draws sounds of a split: first a class, then a group of it, then a sound of that."""

    def __init__(self, sounds: Iterable[Sound]) -> None:
        """Groups sounds by class and group."""
        found: dict[str, dict[str, list[Sound]]] = {}
        for sound in sounds:
            found.setdefault(sound.label, {}).setdefault(sound.group, []).append(sound)
        self._sources: dict[str, list[Source]] = {
            label: list(groups.values()) for label, groups in sorted(found.items())
        }
        kinds = [_kind(label) for label in self._sources]
        share = np.array([_KINDS[kind] / kinds.count(kind) for kind in kinds])
        self.shares: Mapping[str, float] = dict(
            zip(self._sources, (share / share.sum()).tolist(), strict=True)
        )
        """How often `pick` draws each class; classes of a kind are equally likely."""
        self._shares = np.array(list(self.shares.values()))
        self._labels = list(self._sources)

    def pick(self, rng: np.random.Generator) -> Sound:
        """Draws a sound of any class."""
        return pick_one(self.pick_any_source(rng), rng)

    def pick_any_source(self, rng: np.random.Generator) -> Source:
        """Draws a source of any class."""
        label = self._labels[rng.choice(len(self._labels), p=self._shares)]
        return self.pick_source([label], rng)

    def pick_source(self, labels: Sequence[str], rng: np.random.Generator) -> Source:
        """Draws a source of one of the classes. Each of them must have sounds."""
        return pick_one(self._sources[pick_one(labels, rng)], rng)

    def below(self, names: Iterable[str]) -> dict[str, list[str]]:
        """Returns the classes with sounds that each name stands for, if there are any.

        A name stands for its class and all below it; "Music" does not stand for instruments.
        """
        found = {
            name: [label for label in self._sources if _stands_for(name, label)] for name in names
        }
        return {name: labels for name, labels in found.items() if labels}


class CastPicker:
    """Draws the sounds of related scenes."""

    def __init__(
        self,
        places: Iterable[Place],
        sounds: Sequence[Sound],
        can_go_on: Callable[[Sound], bool],
    ) -> None:
        """Selects the places that have sounds.

        Args:
          places: all places.
          sounds: the sounds of a split.
          can_go_on: whether a sound is long enough for a background.
        """
        foregrounds = SoundPicker(sounds)
        all_places = list(places)
        wanted = {name for place in all_places for name in place.background}
        backgrounds = SoundPicker(
            sound
            for sound in sounds
            if any(_stands_for(name, sound.label) for name in wanted) and can_go_on(sound)
        )
        self._foregrounds, self._backgrounds = foregrounds, backgrounds
        self._places = [
            (place.name, background, foreground)
            for place in all_places
            if (background := backgrounds.below(place.background))
            and (foreground := foregrounds.below(place.foreground))
        ]

    @property
    def places(self) -> list[str]:
        """The names of the places that have sounds."""
        return [name for name, _, _ in self._places]

    def pick(self, rng: np.random.Generator) -> Cast:
        """Draws a place, classes that go on and classes that come and go there, and sounds."""
        place, background, foreground = pick_one(self._places, rng)
        going_on = _pick_some(background, _BACKGROUNDS, rng)
        backgrounds = [
            pick_one(self._backgrounds.pick_source(background[name], rng), rng) for name in going_on
        ]
        # A class that goes on can't come and go, nor can those above and below it.
        busy = [with_parents(sound.label) for sound in backgrounds]
        free = {
            name: labels
            for name, all_labels in foreground.items()
            if (labels := [one for one in all_labels if not _meets(one, busy)])
        }
        coming = _pick_some(free, _FOREGROUNDS, rng)
        foregrounds = [self._foregrounds.pick_source(free[name], rng) for name in coming]
        return Cast(place, backgrounds, foregrounds)


def pick_one(items: Sequence[_Item], rng: np.random.Generator) -> _Item:
    """Draws an item; all are equally likely."""
    return items[int(rng.integers(len(items)))]


def _pick_some(
    names: Iterable[str], shares: Sequence[float], rng: np.random.Generator
) -> list[str]:
    """Draws different names; `shares` has the probabilities of 1, 2, ... names."""
    names = list(names)
    count = min(len(names), 1 + int(rng.choice(len(shares), p=shares)))
    return [names[i] for i in rng.permutation(len(names))[:count]]


def _meets(label: str, busy: Iterable[Sequence[str]]) -> bool:
    above = with_parents(label)
    return any(label in others or others[0] in above for others in busy)


def _stands_for(name: str, label: str) -> bool:
    is_instrument = _kind(label) == "instrument" != _kind(name)
    return name in with_parents(label) and not is_instrument


def _kind(label: str) -> str:
    if label in _KINDS:
        return label
    return "instrument" if "Musical instrument" in with_parents(label) else "other"
