"""Mixes scenes of ten seconds: up to four sounds over quiet noise, with onsets and offsets.

A scene is a pure function of its split and number.
"""

import collections
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import soxr
from scipy import signal

from data_pipeline.sources.source import SAMPLE_RATE
from projects.box_model.scenes.sounds import Sound, class_indices, with_parents
from sat_jax.labels import Event

SECONDS = 10.0
NUM_SAMPLES = round(SECONDS * SAMPLE_RATE)

# Shares of the kinds of classes, so that the most frequent ones do not outweigh the rest.
_KINDS = {"Speech": 0.12, "Music": 0.12, "instrument": 0.24, "other": 0.52}
_COUNTS = (0.05, 0.35, 0.3, 0.2, 0.1)
"""Shares of scenes with 0, 1, ... sounds."""
_FRAME = 320
"""Samples over which the level of a sound is measured: 20 ms."""

Read = Callable[[Sound], np.ndarray]


class Scene(NamedTuple):
    """A mixed scene.

    Attributes:
      samples: int16 [160000], mono at 16 kHz.
      events: ordered by onset; those of one class do not overlap.
    """

    samples: np.ndarray
    events: tuple[Event, ...]

    @property
    def labels(self) -> list[int]:
        """The classes of all events, ascending."""
        return sorted({event.class_index for event in self.events})


class SoundPicker:
    """Draws sounds: first a kind, then a class of it, then a sound of that."""

    def __init__(self, sounds: Sequence[Sound]) -> None:
        """Groups the sounds of a split by class and kind."""
        by_class = collections.defaultdict[str, list[Sound]](list)
        for sound in sounds:
            by_class[sound.label].append(sound)
        self._by_class = by_class
        self._kinds: dict[str, list[str]] = {}
        for label in sorted(by_class):
            self._kinds.setdefault(_kind(label), []).append(label)

    def pick(self, rng: np.random.Generator) -> Sound:
        """Draws a sound; classes with more groups are a little more likely."""
        names = sorted(self._kinds)
        shares = np.array([_KINDS[name] for name in names])
        labels = self._kinds[names[rng.choice(len(names), p=shares / shares.sum())]]
        sizes = [len({sound.group for sound in self._by_class[label]}) for label in labels]
        weights = np.minimum(sizes, 30) ** 0.5
        sounds = self._by_class[labels[rng.choice(len(labels), p=weights / weights.sum())]]
        return sounds[rng.integers(len(sounds))]


def _kind(label: str) -> str:
    if label in _KINDS:
        return label
    return "instrument" if "Musical instrument" in with_parents(label) else "other"


def mix_scene(picker: SoundPicker, read: Read, seed: Sequence[int], *, vary_speed: bool) -> Scene:
    """Mixes a scene.

    Args:
      picker: draws the sounds.
      read: returns a sound's samples, float32 [s] at 16 kHz.
      seed: numbers that determine the scene.
      vary_speed: whether to play sounds a little faster or slower.

    Returns:
      The scene. Overlapping sounds of a class are one event.
    """
    rng = np.random.default_rng(list(seed))
    scene = np.zeros(NUM_SAMPLES)
    spans = collections.defaultdict[int, list[tuple[int, int]]](list)
    for _ in range(rng.choice(len(_COUNTS), p=_COUNTS)):
        sound = picker.pick(rng)
        samples = _prepare(read(sound), rng, vary_speed=vary_speed)
        # Echoes go beyond the sound, whose event ends without them.
        with_echo = _echo(samples, rng) if rng.random() < 0.4 else samples
        for start in _starts(len(samples), rng):
            end = min(start + len(samples), NUM_SAMPLES)
            last = min(start + len(with_echo), NUM_SAMPLES)
            scene[start:last] += with_echo[: last - start]
            for index in class_indices(sound.labels):
                spans[index].append((start, end))
    scene += _noise(rng)
    return Scene(_to_int16(scene, rng), _to_events(spans))


def _prepare(sound: np.ndarray, rng: np.random.Generator, *, vary_speed: bool) -> np.ndarray:
    """Cuts a part of a sound, trims silence, and sets a random level."""
    longest = round(rng.uniform(2.0, SECONDS) * SAMPLE_RATE)
    if len(sound) > longest:
        first = int(rng.integers(len(sound) - longest + 1))
        sound = sound[first : first + longest]
    if vary_speed:
        sound = soxr.resample(sound, SAMPLE_RATE, SAMPLE_RATE / rng.uniform(0.88, 1.14))
    first, last = active_span(sound)
    sound = sound[first:last][:NUM_SAMPLES].astype(np.float64)
    level = np.sqrt(_frame_power(sound).max() + 1e-12)
    fade = min(len(sound) // 2, SAMPLE_RATE // 200)
    if fade:
        ramp = np.linspace(0.0, 1.0, fade)
        sound[:fade] *= ramp
        sound[-fade:] *= ramp[::-1]
    return sound * (10 ** (rng.uniform(-28.0, -6.0) / 20) / level)


def to_clip(sound: np.ndarray) -> np.ndarray:
    """Trims a sound to at most ten seconds, and scales it: float32 [s] -> int16 [at least 1]."""
    first, last = active_span(sound)
    part = sound[first:last][:NUM_SAMPLES]
    return np.rint(part * (0.5 / max(np.abs(part).max(), 1e-9)) * 32_767).astype("<i2")


def active_span(sound: np.ndarray) -> tuple[int, int]:
    """Returns first sample and end of all within 40 dB of the loudest frame; never empty."""
    power = _frame_power(sound)
    loud = np.flatnonzero(power >= power.max() * 1e-4)
    return int(loud[0]) * _FRAME, min(len(sound), int(loud[-1] + 1) * _FRAME)


def _frame_power(sound: np.ndarray) -> np.ndarray:
    padded = np.pad(sound, (0, -len(sound) % _FRAME))
    return np.square(padded.reshape(-1, _FRAME)).mean(axis=1)


def _starts(length: int, rng: np.random.Generator) -> list[int]:
    """Draws the positions of a sound: one for a long sound, perhaps several for a short one."""
    first = int(rng.integers(max(1, NUM_SAMPLES - min(length, NUM_SAMPLES // 2))))
    if length > 3 * SAMPLE_RATE or rng.random() < 0.3:
        return [first]
    gap = length + round(rng.uniform(0.05, 1.5) * SAMPLE_RATE)
    times = int(rng.integers(1, 9))
    jitter = rng.uniform(0.0, 0.3 * SAMPLE_RATE, times).astype(int)
    starts = [first + i * gap + int(jitter[i]) for i in range(times)]
    return [start for start in starts if start < NUM_SAMPLES - _FRAME]


def _echo(sound: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Adds echoes of a room: noise that decays by 60 dB in the room's reverberation time."""
    seconds = rng.uniform(0.15, 0.9)
    time = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    echoes = rng.standard_normal(len(time)) * 10 ** (-3 * time / seconds)
    echoes[: round(rng.uniform(0.002, 0.02) * SAMPLE_RATE)] = 0.0
    echoes *= 10 ** (rng.uniform(-12.0, 3.0) / 20) / np.sqrt(np.square(echoes).sum())
    echoes[0] = 1.0
    return signal.fftconvolve(sound, echoes)


def _noise(rng: np.random.Generator) -> np.ndarray:
    """Makes noise between white (slope 0) and brown (slope 2), hardly audible in most scenes."""
    slope, level = rng.uniform(0.0, 2.0), rng.uniform(-75.0, -38.0)
    frequency = np.fft.rfftfreq(NUM_SAMPLES, 1 / SAMPLE_RATE)
    spectrum = np.fft.rfft(rng.standard_normal(NUM_SAMPLES))
    noise = np.fft.irfft(spectrum / np.maximum(frequency, 40.0) ** (slope / 2), NUM_SAMPLES)
    return noise * (10 ** (level / 20) / np.sqrt(np.square(noise).mean()))


def _to_int16(scene: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    gain = 10 ** (rng.uniform(-12.0, 6.0) / 20)
    scene = scene * min(gain, 0.99 / max(np.abs(scene).max(), 1e-9))
    return np.rint(scene * 32_767).astype("<i2")


def _to_events(spans: dict[int, list[tuple[int, int]]]) -> tuple[Event, ...]:
    events = [
        Event(index, start / SAMPLE_RATE, end / SAMPLE_RATE)
        for index, of_class in spans.items()
        for start, end in _merged(of_class)
    ]
    return tuple(sorted(events, key=lambda event: (event.onset, event.class_index)))


def _merged(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged
