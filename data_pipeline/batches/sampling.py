"""The order in which training uses the clips.

The clip at position p of a run (counted over all epochs and rows of batches) depends on the seed
and p alone. So a run can resume anywhere, and processes agree without communication.
"""

import functools
from typing import Literal

import numpy as np

from data_pipeline.sources.source import ClipTable

Sampler = Literal["shuffle", "balanced"]


def balanced_weights(clips: ClipTable) -> np.ndarray:
    """Returns the weight of each clip in balanced sampling, as published.

    Args:
      clips: n clips.

    Returns:
      float64 [n]: the sum over a clip's labels of 1000 / (clips with that label + 100). Rare
      classes are then drawn about as often as common ones.
    """
    counts = np.bincount(clips.label_indices)
    of_label = 1000.0 / (counts[clips.label_indices] + 100.0)
    sums = np.concatenate([[0.0], np.cumsum(of_label)])
    return np.asarray(sums[clips.label_starts[1:]] - sums[clips.label_starts[:-1]])


class ClipOrder:
    """Maps positions in a run to clips.

    Attributes:
      epoch_size: positions in an epoch.
    """

    def __init__(
        self, eligible: np.ndarray, *, seed: int, weights: np.ndarray | None = None, draws: int = 0
    ) -> None:
        """Prepares an order.

        Args:
          eligible: int64 [n], the clips to use, at least one.
          seed: of the order.
          weights: float64 [n], not all 0: draws clips with replacement in proportion to these.
            None uses every clip once per epoch, shuffled anew each time.
          draws: positions in an epoch, with weights.
        """
        self._eligible, self._seed = eligible, seed
        self._probs = None if weights is None else weights / weights.sum()
        self.epoch_size = len(eligible) if weights is None else draws
        self._epoch = functools.lru_cache(maxsize=2)(self._make_epoch)

    def clips(self, positions: np.ndarray) -> np.ndarray:
        """Returns the clips at some positions: int64 [b] -> int64 [b]."""
        epochs, offsets = np.divmod(positions, self.epoch_size)
        found = np.empty(len(positions), np.int64)
        for epoch in np.unique(epochs):
            in_epoch = epochs == epoch
            found[in_epoch] = self._epoch(int(epoch))[offsets[in_epoch]]
        return found

    def _make_epoch(self, epoch: int) -> np.ndarray:
        rng = np.random.default_rng([self._seed, 0, epoch])
        if self._probs is None:
            return rng.permutation(self._eligible)
        return rng.choice(self._eligible, size=self.epoch_size, p=self._probs)
