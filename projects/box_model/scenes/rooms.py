"""Banks of room echoes and background noises, which many scenes share.

Each is a function of a split and its number, so that the rooms of training are not those of the
test.
"""

import functools

import numpy as np
from scipy import fft, signal

from data_pipeline.sources.source import SAMPLE_RATE

_ROOMS, _NOISES = 256, 64


def add_echoes(sound: np.ndarray, split: int, rng: np.random.Generator) -> np.ndarray:
    """Plays a sound in a random room: float32 [s] -> [up to s + 14400]."""
    return signal.fftconvolve(sound, _room(split, int(rng.integers(_ROOMS))))


def draw_noise(length: int, split: int, rng: np.random.Generator) -> np.ndarray:
    """Draws noise of a level between -75 and -38 dB, hardly audible in most scenes: float32 [s]."""
    noise = _noise(split, int(rng.integers(_NOISES)), length)
    level = np.float32(10 ** (rng.uniform(-75.0, -38.0) / 20))
    # The noise is periodic, so it may begin anywhere.
    return np.roll(noise, int(rng.integers(length))) * level


@functools.cache
def _room(split: int, number: int) -> np.ndarray:
    """Makes echoes: noise that decays by 60 dB in the room's reverberation time."""
    rng = np.random.default_rng([split, number, 0])
    seconds = rng.uniform(0.15, 0.9)
    time = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    echoes = rng.standard_normal(len(time)) * 10 ** (-3 * time / seconds)
    echoes[: round(rng.uniform(0.002, 0.02) * SAMPLE_RATE)] = 0.0
    echoes *= 10 ** (rng.uniform(-12.0, 3.0) / 20) / np.sqrt(np.square(echoes).sum())
    echoes[0] = 1.0
    return echoes.astype(np.float32)


@functools.cache
def _noise(split: int, number: int, length: int) -> np.ndarray:
    """Makes noise of power 1 between white (slope 0) and brown (slope 2)."""
    rng = np.random.default_rng([split, number, 1])
    frequency = fft.rfftfreq(length, 1 / SAMPLE_RATE)
    spectrum = fft.rfft(rng.standard_normal(length))
    spectrum /= np.maximum(frequency, 40.0) ** (rng.uniform(0.0, 2.0) / 2)
    noise = fft.irfft(spectrum, length)
    return (noise / np.sqrt(np.square(noise).mean())).astype(np.float32)
