"""Levels of a stream, for the sound "loud"."""

from typing import NamedTuple

import numpy as np


class Level(NamedTuple):
    """How loud 0.1 s of sound are; 1 is full scale.

    Attributes:
      start: seconds of the stream.
      end: seconds.
      rms: root mean square of the samples.
      peak: the largest magnitude.
    """

    start: float
    end: float
    rms: float
    peak: float


class LevelMeter:
    """Measures each 0.1 s of one stream."""

    def __init__(self, sample_rate: int, first: int = 0) -> None:
        """Starts to measure.

        Args:
          sample_rate: of the stream, Hz.
          first: sample of the stream that comes first.
        """
        self._rate, self._size = sample_rate, sample_rate // 10
        self._rest = np.zeros(0, np.float32)
        self._first = first

    def push(self, samples: np.ndarray) -> list[Level]:
        """Takes the next samples, float32 [s], and returns the levels that are complete."""
        samples = np.concatenate([self._rest, samples])
        count = len(samples) // self._size
        whole, self._rest = np.split(samples, [count * self._size])
        blocks = whole.reshape(count, self._size)
        rms = np.sqrt(np.square(blocks, dtype=np.float64).mean(1))
        peaks = np.abs(blocks).max(1, initial=0.0)
        firsts = self._first + self._size * np.arange(count)
        self._first += len(whole)
        starts, ends = firsts / self._rate, (firsts + self._size) / self._rate
        columns = (column.tolist() for column in (starts, ends, rms, peaks))
        return [Level(*each) for each in zip(*columns, strict=True)]
