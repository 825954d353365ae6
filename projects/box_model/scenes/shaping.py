"""Cuts and changes the samples of sounds: float32 [s], mono at 16 kHz."""

import numpy as np
from scipy import fft

from data_pipeline.sources.source import SAMPLE_RATE

FRAME = 320
"""Samples over which the level of a sound is measured: 20 ms."""
_GRID = np.linspace(0.0, SAMPLE_RATE / 2, 129)
_GRID[0] = 20.0
"""Frequencies in Hz at which equalisers are given."""
_MARGIN = 400
"""Zeros behind a sound, so that its end does not reach its beginning through a filter."""


def frame_power(sound: np.ndarray) -> np.ndarray:
    """Returns the mean square of each frame: float32 [s] -> [ceil(s / 320)]."""
    padded = np.pad(sound, (0, -len(sound) % FRAME)).reshape(-1, FRAME)
    return np.einsum("nf,nf->n", padded, padded) / FRAME


def active_span(sound: np.ndarray) -> tuple[int, int]:
    """Returns first sample and end of all within 40 dB of the loudest frame; never empty."""
    power = frame_power(sound)
    loud = np.flatnonzero(power >= power.max() * 1e-4)
    return int(loud[0]) * FRAME, min(len(sound), int(loud[-1] + 1) * FRAME)


def trim(sound: np.ndarray) -> np.ndarray:
    """Returns the active span."""
    first, last = active_span(sound)
    return sound[first:last]


def cut(sound: np.ndarray, length: int, rng: np.random.Generator) -> np.ndarray:
    """Returns a random part of at most `length` samples.

    It contains a frame within 20 dB of the loudest one, so that it is no pause of the recording.
    """
    if len(sound) <= length:
        return sound
    power = frame_power(sound)
    loud = np.flatnonzero(power >= power.max() * 1e-2)
    first = int(rng.choice(loud)) * FRAME - int(rng.integers(max(1, length - FRAME)))
    first = min(max(first, 0), len(sound) - length)
    return sound[first : first + length]


def loop(sound: np.ndarray, length: int, rng: np.random.Generator) -> np.ndarray:
    """Returns a part of exactly `length` samples, from a random place on.

    A shorter sound is repeated; its end and beginning overlap by a tenth, at most half a second.
    """
    if len(sound) > length:
        return cut(sound, length, rng)
    overlap = min(len(sound) // 10, SAMPLE_RATE // 2)
    period = sound[: len(sound) - overlap].copy()
    angle = np.linspace(0.0, np.pi / 2, overlap, dtype=np.float32)
    # Noise keeps its power in an overlap of sine and cosine.
    period[:overlap] = period[:overlap] * np.sin(angle) + sound[len(period) :] * np.cos(angle)
    return np.resize(np.roll(period, -int(rng.integers(len(period)))), length)


def set_level(sound: np.ndarray, decibels: float) -> np.ndarray:
    """Scales a sound so that its loudest frame has this level; 0 is full scale."""
    level = np.sqrt(frame_power(sound).max() + 1e-12)
    return sound * np.float32(10 ** (decibels / 20) / level)


def fade(sound: np.ndarray, before: int, after: int) -> np.ndarray:
    """Fades a sound in and out, over so many samples or half of it."""
    sound, half = sound.copy(), len(sound) // 2
    for part, length in ((sound, min(before, half)), (sound[::-1], min(after, half))):
        part[:length] *= np.linspace(0.0, 1.0, length, dtype=np.float32)
    return sound


def draw_equaliser(rng: np.random.Generator) -> np.ndarray:
    """Draws factors over 0 to 8 kHz, as of a microphone and a distance.

    Each equaliser tilts the spectrum by at most 2 dB per octave. 30 % cut off low frequencies from
    80 to 500 Hz (6 dB per octave), 25 % high ones from 1 to 7 kHz (12 dB per octave).
    """
    factors = (_GRID / 1000) ** rng.uniform(-1 / 3, 1 / 3)
    low, high = np.exp(rng.uniform(np.log([80.0, 1000.0]), np.log([500.0, 7000.0])))
    draws = rng.random(2)
    if draws[0] < 0.3:
        factors /= np.sqrt(1 + (low / _GRID) ** 2)
    if draws[1] < 0.25:
        factors /= np.sqrt(1 + (_GRID / high) ** 4)
    return factors


def play(sound: np.ndarray, speed: float, equaliser: np.ndarray) -> np.ndarray:
    """Plays a sound at another speed and through an equaliser.

    Args:
      sound: float32 [s].
      speed: 2 is twice as fast and an octave higher. Rounded by up to 2 %, for fast transforms.
      equaliser: factors of `draw_equaliser`.

    Returns:
      float32 [about s / speed].
    """
    # One transform does both: fewer samples for the same spectrum are the same sound, faster.
    size = fft.next_fast_len(len(sound) + _MARGIN, real=True)
    new_size = fft.next_fast_len(max(2, round(size / speed)), real=True)
    spectrum = fft.rfft(sound, size)[: new_size // 2 + 1]
    frequency = np.arange(len(spectrum)) * (SAMPLE_RATE / new_size)
    spectrum *= np.interp(frequency, _GRID, equaliser * (new_size / size)).astype(np.float32)
    return fft.irfft(spectrum, new_size)[: max(1, round(len(sound) * new_size / size))]
