"""One live stream on the host: samples that wait for a step, and what is known of its time."""

import collections
import dataclasses
import math
from typing import Literal

import numpy as np

Pace = Literal["realtime", "asap"]
"""Sound that is heard now and must not lag, or a recording that can wait."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scored:
    """What the engine tells about a part of a stream. Samples count at the model's rate.

    Attributes:
      first: sample at which it begins.
      end: sample at which it ends.
      probs: float32 [y]; None if the sound was lost to overload.
      lag: seconds between the arrival of its last sample and its scores.
      samples: float32 [s].
    """

    first: int
    end: int
    probs: np.ndarray | None
    lag: float
    samples: np.ndarray


class WaitingSamples:
    """Samples that came and were not scored yet."""

    def __init__(self, hop: int) -> None:
        """Starts without samples."""
        self._hop = hop
        self._blocks: collections.deque[np.ndarray] = collections.deque()
        self._arrivals: collections.deque[float] = collections.deque()
        self._count = 0

    def __len__(self) -> int:
        """Returns the number of samples."""
        return self._count

    @property
    def arrival(self) -> float | None:
        """When the last sample of the next chunk came; None if the chunk is not complete."""
        return self._arrivals[0] if self._arrivals else None

    def push(self, samples: np.ndarray, now: float) -> None:
        """Takes the next samples, float32 [s], which came now."""
        complete = self._count // self._hop
        self._blocks.append(samples)
        self._count += len(samples)
        self._arrivals.extend([now] * (self._count // self._hop - complete))

    def take_chunk(self) -> np.ndarray:
        """Removes the next chunk, which is complete: float32 [hop]."""
        self._arrivals.popleft()
        return self._take(self._hop)

    def take_all(self) -> np.ndarray:
        """Removes all samples."""
        self._arrivals.clear()
        return self._take(self._count)

    def _take(self, count: int) -> np.ndarray:
        taken, found = [], 0
        while found < count:
            block = self._blocks.popleft()
            missing = count - found
            if len(block) > missing:
                self._blocks.appendleft(block[missing:])
                block = block[:missing]
            taken.append(block)
            found += len(block)
        self._count -= count
        return np.concatenate(taken) if taken else np.zeros(0, np.float32)


def decibels(rms: float) -> float:
    """Returns a level in dB of full scale, at least -120."""
    return 20.0 * math.log10(max(rms, 1e-6))
