"""How steady scores are while a class goes on: from one chunk of a clip to the next.

Only active pairs count: a clip and a class that it is labelled with.
"""

import dataclasses
from collections.abc import Iterable

import numpy as np

from sat_jax.errors import SatError


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Stability:
    """Long-term stability of chunk scores.

    Attributes:
      pairs: [y] int64, clips labelled with each class.
      pairs_with_changes: [y] int64, those of them that have two chunks or more.
      squared_change: [y] float64 in [0, 1]: of p(i+1) - p(i) the mean square in each clip, then the
        mean over clips; NaN where no clip has two chunks.
      share_above: [y] float64 in [0, 1]: the share of chunks whose score reaches the threshold in
        each clip, then the mean over clips; NaN where a class has no clip.
    """

    pairs: np.ndarray
    pairs_with_changes: np.ndarray
    squared_change: np.ndarray
    share_above: np.ndarray

    @property
    def mean_squared_change(self) -> float | None:
        """Mean over all active pairs that have two chunks or more; None if there is none."""
        return _mean(self.squared_change, self.pairs_with_changes)

    @property
    def mean_share_above(self) -> float | None:
        """Mean over all active pairs; None if there is none."""
        return _mean(self.share_above, self.pairs)


def measure_stability(
    clips: Iterable[tuple[np.ndarray, np.ndarray]],
    *,
    num_classes: int,
    threshold: float | np.ndarray = 0.5,
) -> Stability:
    """Measures how scores of the classes that are heard move from chunk to chunk.

    Args:
      clips: for each clip float [k, y], the probabilities of its chunks in order, k >= 1, and
        int [l], the distinct classes it is labelled with. Read once, one clip at a time.
      num_classes: y.
      threshold: a chunk counts as above where its score is this or more; one for all, or [y].
        Compared as float32, as tags are.

    Raises:
      SatError: scores or thresholds are not of y classes, a clip has no chunk, or a label is none
        of the classes.
    """
    least = np.asarray(threshold, np.float32)
    if least.shape not in ((), (num_classes,)):
        raise SatError(
            f"thresholds of shape {list(least.shape)} do not fit {num_classes} classes: "
            "give one for all, or one per class"
        )
    least = np.broadcast_to(least, num_classes)
    pairs, pairs_with_changes = np.zeros((2, num_classes), np.int64)
    squares, shares = np.zeros((2, num_classes))
    for probs, labels in clips:
        labels = np.asarray(labels, np.int64)
        _check(probs, labels, num_classes)
        active = np.asarray(probs)[:, labels]  # [k, l]
        pairs[labels] += 1
        shares[labels] += (active.astype(np.float32) >= least[labels]).mean(0)
        if len(active) > 1:
            pairs_with_changes[labels] += 1
            squares[labels] += np.square(np.diff(active.astype(np.float64), axis=0)).mean(0)
    with np.errstate(invalid="ignore"):  # 0 / 0 is the NaN of a class without clips.
        return Stability(
            pairs=pairs,
            pairs_with_changes=pairs_with_changes,
            squared_change=squares / pairs_with_changes,
            share_above=shares / pairs,
        )


def _check(probs: np.ndarray, labels: np.ndarray, num_classes: int) -> None:
    if probs.ndim != 2 or probs.shape[1] != num_classes or not len(probs):
        raise SatError(
            f"scores of shape {list(probs.shape)} are not those of one chunk or more of "
            f"{num_classes} classes"
        )
    strange = labels[(labels < 0) | (labels >= num_classes)]
    if len(strange):
        raise SatError(f"label {strange[0]} is none of {num_classes} classes, counted from 0")


def _mean(values: np.ndarray, weights: np.ndarray) -> float | None:
    counted = weights > 0
    return float(np.average(values[counted], weights=weights[counted])) if counted.any() else None
