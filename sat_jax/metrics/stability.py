"""Stability of scores over the chunks of a clip.

Only (clip, class) pairs count in which the clip is labelled with the class.
"""

import dataclasses
from collections.abc import Iterable

import numpy as np

from sat_jax.errors import SatError
from sat_jax.metrics.strong import broadcast_threshold


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Stability:
    """Stability of chunk scores per class.

    Attributes:
      pairs: int64 [y], clips labelled with each class.
      pairs_with_changes: int64 [y], those of them with two chunks or more.
      squared_change: float64 [y] in [0, 1], mean over clips of the mean of (p(i+1) - p(i))²; NaN
        if no clip of the class has two chunks.
      share_above: float64 [y] in [0, 1], mean over clips of the share of chunks whose score reaches
        the threshold; NaN for a class without clips.
    """

    pairs: np.ndarray
    pairs_with_changes: np.ndarray
    squared_change: np.ndarray
    share_above: np.ndarray

    @property
    def mean_squared_change(self) -> float | None:
        """Mean over all pairs with two chunks or more; None if there is none."""
        return _mean(self.squared_change, self.pairs_with_changes)

    @property
    def mean_share_above(self) -> float | None:
        """Mean over all pairs; None if there is none."""
        return _mean(self.share_above, self.pairs)


def measure_stability(
    clips: Iterable[tuple[np.ndarray, np.ndarray]],
    *,
    num_classes: int,
    threshold: float | np.ndarray = 0.5,
) -> Stability:
    """Measures how much the scores of a clip's labels change from chunk to chunk.

    Args:
      clips: for each clip, probabilities float [k, y] of its chunks in order, k >= 1, and its
        distinct labels int [l]. One clip is held at a time.
      num_classes: y.
      threshold: in [0, 1], one number or [y]; compared as float32, as in tagging.

    Raises:
      SatError: scores or thresholds do not have y classes, a clip has no chunk, or a label is not
        a class.
    """
    thresholds = broadcast_threshold(threshold, num_classes)
    pairs, pairs_with_changes = np.zeros((2, num_classes), np.int64)
    squares, shares = np.zeros((2, num_classes))
    for probs, labels in clips:
        labels = np.asarray(labels, np.int64)
        _check(probs, labels, num_classes)
        active = probs[:, labels]  # [k, l]
        pairs[labels] += 1
        shares[labels] += (active.astype(np.float32) >= thresholds[labels]).mean(0)
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
            f"scores of shape {list(probs.shape)}: give [chunks, classes] with at least one chunk "
            f"and {num_classes} classes"
        )
    wrong = labels[(labels < 0) | (labels >= num_classes)]
    if len(wrong):
        raise SatError(f"label {wrong[0]} is not in 0..{num_classes - 1}")


def _mean(values: np.ndarray, weights: np.ndarray) -> float | None:
    counted = weights > 0
    return float(np.average(values[counted], weights=weights[counted])) if counted.any() else None
