"""Levels of a stream, for the sound "loud"."""

from typing import NamedTuple

import numpy as np


class Level(NamedTuple):
    """The level of 0.1 s of sound.

    Attributes:
      start: seconds of the stream.
      end: seconds.
      value: root mean square of the samples; 1 is full scale.
    """

    start: float
    end: float
    value: float


class LevelMeter:
    """Measures each 0.1 s of one stream."""

    def __init__(self, sample_rate: int) -> None:
        """Starts at the begin of a stream.

        Args:
          sample_rate: of the stream, Hz.
        """
        self._rate, self._size = sample_rate, sample_rate // 10
        self._rest = np.zeros(0, np.float32)
        self._first = 0

    def push(self, samples: np.ndarray) -> list[Level]:
        """Takes the next samples, float32 [s], and returns the levels that are complete."""
        samples = np.concatenate([self._rest, samples])
        count = len(samples) // self._size
        whole, self._rest = np.split(samples, [count * self._size])
        squares = np.square(whole, dtype=np.float64).reshape(count, self._size)
        firsts = self._first + self._size * np.arange(count)
        self._first += len(whole)
        starts, ends = firsts / self._rate, (firsts + self._size) / self._rate
        return [
            Level(*each)
            for each in zip(
                starts.tolist(), ends.tolist(), np.sqrt(squares.mean(1)).tolist(), strict=True
            )
        ]
