"""In which order clips are seen.

Position p of a run (counted over all epochs and rows of batches) holds a clip that follows from
the seed and p alone, so a run goes on anywhere and hosts agree without talking.
"""

import functools
from typing import Literal

import numpy as np

from data_pipeline.sources.source import ClipTable

Sampler = Literal["shuffle", "balanced"]


def balanced_weights(clips: ClipTable) -> np.ndarray:
    """How much more often than others each clip is drawn, as published.

    Args:
      clips: n clips.

    Returns:
      float64 [n]: the sum over a clip's labels of 1000 / (clips with that label + 100), so that
      rare classes are heard about as often as common ones.
    """
    counts = np.bincount(clips.label_indices) if len(clips.label_indices) else np.zeros(1)
    of_label = 1000.0 / (counts[clips.label_indices] + 100.0)
    sums = np.concatenate([[0.0], np.cumsum(of_label)])
    return np.asarray(sums[clips.label_starts[1:]] - sums[clips.label_starts[:-1]])


class ClipOrder:
    """From positions in a run to clips."""

    def __init__(
        self, eligible: np.ndarray, *, seed: int, weights: np.ndarray | None = None, draws: int = 0
    ) -> None:
        """Prepares an order.

        Args:
          eligible: int64 [n], the clips that may be seen, at least one.
          seed: of all that is random.
          weights: float64 [n], not all 0; clips are drawn with replacement in proportion to
            them. None: every clip once an epoch, in a new order each time.
          draws: positions in an epoch, with weights.
        """
        self._eligible, self._seed = eligible, seed
        self._shares = None if weights is None else weights / weights.sum()
        self.epoch_size = len(eligible) if weights is None else draws
        self._epoch = functools.lru_cache(maxsize=2)(self._make_epoch)

    def clips(self, positions: np.ndarray) -> np.ndarray:
        """The clips at some positions, int64 [b] both."""
        epochs, places = np.divmod(positions, self.epoch_size)
        found = np.empty(len(positions), np.int64)
        for epoch in np.unique(epochs):
            there = epochs == epoch
            found[there] = self._epoch(int(epoch))[places[there]]
        return found

    def _make_epoch(self, epoch: int) -> np.ndarray:
        rng = np.random.default_rng([self._seed, 0, epoch])
        if self._shares is None:
            return rng.permutation(self._eligible)
        return rng.choice(self._eligible, size=self.epoch_size, p=self._shares)
