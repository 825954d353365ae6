"""Mixes scenes of ten seconds, with onsets and offsets of their sounds.

Scenes with even numbers are related: one place, a background that goes on, and a few sources that
come and go, each heard several times. Those with odd numbers are random: up to four sounds that
have nothing to do with each other. Solo scenes have one source, changed more strongly. A scene is a
pure function of its split, its number and the sounds.
"""

import collections
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from data_pipeline.sources.source import SAMPLE_RATE
from projects.box_model.scenes.drawing import CastPicker, SoundPicker, Source, pick_one
from projects.box_model.scenes.places import Place
from projects.box_model.scenes.rooms import add_echoes, draw_noise
from projects.box_model.scenes.shaping import (
    FRAME,
    cut,
    draw_equaliser,
    fade,
    loop,
    play,
    set_level,
    trim,
)
from projects.box_model.scenes.sounds import SPLITS, Sound, class_indices
from sat_jax.labels import Event

SECONDS = 10.0
NUM_SAMPLES = round(SECONDS * SAMPLE_RATE)
RANDOM, SOLO = "random", "solo"
"""Stand for the place in the names of scenes that have none."""

_COUNTS = (0.05, 0.35, 0.3, 0.2, 0.1)
"""Shares of random scenes with 0, 1, ... sounds."""
_SPEEDS = (0.88, 1.14)
"""Training sounds are played this much slower to faster."""
_SOLO_SPEEDS = (0.7, 1.4)
_FADE = SAMPLE_RATE // 200

Read = Callable[[Sound], np.ndarray]


class Scene(NamedTuple):
    """A mixed scene.

    Attributes:
      name: "test_street_000002": split, place or "random", number.
      samples: int16 [160000], mono at 16 kHz.
      events: ordered by onset; those of one class do not overlap.
    """

    name: str
    samples: np.ndarray
    events: tuple[Event, ...]

    @property
    def labels(self) -> list[int]:
        """The classes of all events, ascending."""
        return sorted({event.class_index for event in self.events})


def is_related(name: str) -> bool:
    """Whether the scene of this name is one of sounds that go together."""
    return name.split("_")[1] not in (RANDOM, SOLO)


class Mixer:
    """Mixes the scenes of a split."""

    def __init__(
        self, split: str, sounds: Sequence[Sound], places: Iterable[Place], read: Read
    ) -> None:
        """Finds what can be drawn.

        Args:
          split: one of `SPLITS`. Training sounds are played a little faster or slower.
          sounds: the sounds of the split.
          places: the places of related scenes. Those without sounds are skipped; one has some.
          read: returns a sound's samples, float32 [s] at 16 kHz; called from several threads.
        """
        self._split, self._read = split, read
        self._bank = SPLITS.index(split)
        self._picker = SoundPicker(sounds)
        self._casts = CastPicker(places, sounds, self._can_go_on)

    def mix(self, number: int) -> Scene:
        """Mixes a scene."""
        rng = np.random.default_rng([self._bank, number])
        mixture = _Mixture()
        place = RANDOM
        if number % 2:
            self._add_random(mixture, rng)
        else:
            place = self._add_related(mixture, rng)
        return self._finish(f"{place}_{number:06d}", mixture, rng)

    def mix_solo(self, number: int) -> Scene:
        """Mixes a scene of one source, which is heard again and again, each time changed anew."""
        rng = np.random.default_rng([len(SPLITS) + self._bank, number])
        mixture = _Mixture()
        source = self._picker.pick_any_source(rng)
        start = int(rng.integers(SAMPLE_RATE // 2))
        level = rng.uniform(-30.0, -3.0)
        while start < NUM_SAMPLES - FRAME:
            sound = pick_one(source, rng)
            part = cut(self._read(sound), round(rng.uniform(1.0, SECONDS) * SAMPLE_RATE), rng)
            speed = np.exp(rng.uniform(*np.log(_SOLO_SPEEDS)))
            part = trim(play(part, speed, draw_equaliser(rng)))[:NUM_SAMPLES]
            part = fade(set_level(part, level + rng.uniform(-3.0, 3.0)), _FADE, _FADE)
            heard = add_echoes(part, self._bank, rng) if rng.random() < 0.3 else part
            _lay(heard, mixture.samples, start)
            mixture.mark(sound, start, start + len(part))
            start += len(part) + round(rng.uniform(0.05, 1.0) * SAMPLE_RATE)
        return self._finish(f"{SOLO}_{number:06d}", mixture, rng)

    def _can_go_on(self, sound: Sound) -> bool:
        # Shorter ones would hum when they are repeated.
        return len(trim(self._read(sound))) >= SAMPLE_RATE

    def _finish(self, name: str, mixture: "_Mixture", rng: np.random.Generator) -> Scene:
        _lay(draw_noise(NUM_SAMPLES, self._bank, rng), mixture.samples, 0)
        return Scene(f"{self._split}_{name}", _to_int16(mixture.samples, rng), mixture.events())

    def _speed(self, rng: np.random.Generator) -> float:
        return rng.uniform(*_SPEEDS) if self._split == "train" else 1.0

    def _add_random(self, mixture: "_Mixture", rng: np.random.Generator) -> None:
        for _ in range(rng.choice(len(_COUNTS), p=_COUNTS)):
            sound = self._picker.pick(rng)
            part = cut(self._read(sound), round(rng.uniform(2.0, SECONDS) * SAMPLE_RATE), rng)
            part = trim(play(part, self._speed(rng), draw_equaliser(rng)))[:NUM_SAMPLES]
            part = fade(set_level(part, rng.uniform(-28.0, -6.0)), _FADE, _FADE)
            heard = add_echoes(part, self._bank, rng) if rng.random() < 0.4 else part
            for start in _starts(len(part), rng):
                _lay(heard, mixture.samples, start)
                mixture.mark(sound, start, start + len(part))

    def _add_related(self, mixture: "_Mixture", rng: np.random.Generator) -> str:
        """Adds the sounds of a place, and returns its name."""
        cast = self._casts.pick(rng)
        level = rng.uniform(-20.0, -9.0)
        for sound in cast.backgrounds:
            # Most began before the scene. All go on beyond it.
            start = 0 if rng.random() < 0.6 else int(rng.integers(NUM_SAMPLES // 3))
            part = loop(trim(self._read(sound)), round(NUM_SAMPLES * _SPEEDS[1]), rng)
            part = play(part, self._speed(rng), draw_equaliser(rng))[: NUM_SAMPLES - start]
            part = set_level(part, level + rng.uniform(-12.0, -1.0))
            _lay(fade(part, SAMPLE_RATE // 4 if start else 0, 0), mixture.samples, start)
            mixture.mark(sound, start, NUM_SAMPLES)
        front = np.zeros(NUM_SAMPLES, np.float32)
        for source in cast.foregrounds:
            loudness = level + rng.uniform(-6.0, 3.0)
            for sound, part, start in self._occurrences(source, rng):
                part = set_level(part, loudness + rng.uniform(-2.0, 2.0))
                _lay(fade(part, _FADE, _FADE), front, start)
                mixture.mark(sound, start, start + len(part))
        # One room for all.
        heard = add_echoes(front, self._bank, rng) if rng.random() < 0.6 else front
        _lay(heard, mixture.samples, 0)
        return cast.place

    def _occurrences(
        self, source: Source, rng: np.random.Generator
    ) -> Iterator[tuple[Sound, np.ndarray, int]]:
        """Yields a sound of the source, its samples and start for each time that it is heard.

        It comes 2 to 4 times, once in each part of the scene. It fills at most half of a part, and
        a pause of a quarter follows. A short sound may be repeated each time.
        """
        speed, equaliser = self._speed(rng), draw_equaliser(rng)
        slot = NUM_SAMPLES // int(rng.integers(2, 5))
        longest = slot // 2
        begin = int(rng.integers(slot // 4 + 1))
        for first in range(begin, begin + NUM_SAMPLES - slot + 1, slot):
            sound = pick_one(source, rng)
            part = trim(play(cut(self._read(sound), longest, rng), speed, equaliser))[:longest]
            step = len(part) + round(rng.uniform(0.05, 0.5) * SAMPLE_RATE)
            times = min(int(rng.integers(1, 5)), 1 + (longest - len(part)) // step)
            free = 3 * slot // 4 - (times - 1) * step - len(part)
            start = first + int(rng.integers(free + 1))
            for i in range(times):
                yield sound, part, start + i * step


class _Mixture:
    """What is mixed so far, and where each class is heard."""

    def __init__(self) -> None:
        self.samples = np.zeros(NUM_SAMPLES, np.float32)
        self._spans = collections.defaultdict[int, list[tuple[int, int]]](list)

    def mark(self, sound: Sound, start: int, end: int) -> None:
        """Notes that a sound is heard, as far as it is in the scene."""
        for index in class_indices(sound.labels):
            self._spans[index].append((start, min(end, NUM_SAMPLES)))

    def events(self) -> tuple[Event, ...]:
        """Returns the events by onset. Overlapping sounds of a class are one."""
        events = [
            Event(index, start / SAMPLE_RATE, end / SAMPLE_RATE)
            for index, spans in self._spans.items()
            for start, end in _merged(spans)
        ]
        return tuple(sorted(events, key=lambda event: (event.onset, event.class_index)))


def _lay(sound: np.ndarray, samples: np.ndarray, start: int) -> None:
    """Adds as much of a sound as fits."""
    end = min(start + len(sound), len(samples))
    samples[start:end] += sound[: end - start]


def _starts(length: int, rng: np.random.Generator) -> list[int]:
    """Draws the positions of a sound: one for a long sound, perhaps several for a short one."""
    first = int(rng.integers(max(1, NUM_SAMPLES - min(length, NUM_SAMPLES // 2))))
    if length > 3 * SAMPLE_RATE or rng.random() < 0.3:
        return [first]
    gap = length + round(rng.uniform(0.05, 1.5) * SAMPLE_RATE)
    times = int(rng.integers(1, 9))
    jitter = rng.uniform(0.0, 0.3 * SAMPLE_RATE, times).astype(int)
    starts = [first + i * gap + int(jitter[i]) for i in range(times)]
    return [start for start in starts if start < NUM_SAMPLES - FRAME]


def _to_int16(scene: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Sets a random gain. One scene in fifty is too loud by up to 6 dB, and clipped."""
    gain, excess, draw = rng.uniform(-12.0, 6.0), rng.uniform(0.0, 6.0), rng.random()
    to_peak = 0.99 / max(float(np.abs(scene).max()), 1e-9)
    factor = to_peak * 10 ** (excess / 20) if draw < 0.02 else min(10 ** (gain / 20), to_peak)
    return np.rint(np.clip(scene * np.float32(factor), -0.99, 0.99) * 32_767).astype("<i2")


def to_clip(sound: np.ndarray) -> np.ndarray:
    """Trims a sound to at most ten seconds, and scales it: float32 [s] -> int16 [at least 1]."""
    part = trim(sound)[:NUM_SAMPLES]
    return np.rint(part * (0.5 / max(np.abs(part).max(), 1e-9)) * 32_767).astype("<i2")


def _merged(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged
