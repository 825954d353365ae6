"""Finds a detection threshold for each class on labelled clips.

A class is detected where its score reaches the threshold. Scores are compared as float32.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

from sat_jax.errors import SatError
from sat_jax.metrics.ranking import check_sklearn, check_targets


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Thresholds:
    """One threshold per class, and its results on the clips of the search.

    Attributes:
      values: float32 [y] in [0, 1], the thresholds.
      f1: float64 [y] in [0, 1]; NaN for a class without positive clips, as the next two.
      precision: float64 [y] in [0, 1]; also NaN if no clip reaches the threshold.
      recall: float64 [y] in [0, 1].
      positives: int64 [y], clips labelled with each class.
    """

    values: np.ndarray
    f1: np.ndarray
    precision: np.ndarray
    recall: np.ndarray
    positives: np.ndarray


# From the counts at each distinct score, highest first, to the index of the best one (None if there
# is none): true positives, detected clips, and the number of positive clips.
_Choose = Callable[[np.ndarray, np.ndarray, int], int | None]


def best_f1_thresholds(targets: np.ndarray, scores: np.ndarray) -> Thresholds:
    """Finds the threshold of each class with the highest F1.

    F1 is the harmonic mean of precision and recall. Of several best thresholds the highest is
    taken. It lies midway between the lowest detected score and the next lower one (or 0), so that
    rounding changes no detection. A class without positive clips gets the threshold with the best
    micro-averaged F1 of all other classes.

    Args:
      targets: bool [n, y], the labels of n clips.
      scores: [n, y] in [0, 1].

    Raises:
      SatError: shapes differ, a score is not in [0, 1], no clip has a label, or scikit-learn is
        missing.
    """
    return _thresholds(targets, scores, _highest_f1)


def precision_thresholds(
    targets: np.ndarray, scores: np.ndarray, *, precision: float = 0.9
) -> Thresholds:
    """Finds the threshold of each class with this precision and the highest recall.

    It lies midway between scores, as in `best_f1_thresholds`. A class that never reaches the
    precision gets 1.0, so that only a score of exactly 1.0 is detected. A class without positive
    clips gets the threshold where all other classes together reach the precision.

    Args:
      targets: bool [n, y], the labels of n clips.
      scores: [n, y] in [0, 1].
      precision: in (0, 1], the least share of detected clips that are labelled with the class.

    Raises:
      SatError: as `best_f1_thresholds`, or the precision is out of range.
    """
    if not 0.0 < precision <= 1.0:
        raise SatError(f"precision={precision}: give a number above 0 and at most 1")

    def highest_recall(hits: np.ndarray, detected: np.ndarray, positives: int) -> int | None:
        del positives  # More hits mean a higher recall.
        precise = hits / detected >= precision
        return int(np.argmax(np.where(precise, hits, -1))) if precise.any() else None

    return _thresholds(targets, scores, highest_recall)


def _highest_f1(hits: np.ndarray, detected: np.ndarray, positives: int) -> int:
    return int(np.argmax(2 * hits / (detected + positives)))


def _thresholds(targets: np.ndarray, scores: np.ndarray, choose: _Choose) -> Thresholds:
    check_sklearn()
    truth, scores = np.asarray(targets, bool), np.asarray(scores, np.float32)
    check_targets(truth, scores)
    if not np.all((scores >= 0.0) & (scores <= 1.0)):  # Also refuses NaN.
        raise SatError("scores outside of [0, 1]: give probabilities")
    positives = truth.sum(0, dtype=np.int64)
    labelled = positives > 0
    values = np.empty(len(positives), np.float32)
    for index in np.flatnonzero(labelled):
        values[index] = _threshold(truth[:, index], scores[:, index], choose)
    if not labelled.all():
        values[~labelled] = _threshold(
            truth[:, labelled].ravel(), scores[:, labelled].ravel(), choose
        )
    above = scores >= values
    hits, detected = (truth & above).sum(0), above.sum(0)
    with np.errstate(invalid="ignore"):  # 0 / 0 is the NaN of a class that is never detected.
        precision = hits / detected
        recall = hits / positives
    return Thresholds(
        values=values,
        f1=np.where(labelled, 2 * hits / np.maximum(detected + positives, 1), np.nan),
        precision=np.where(labelled, precision, np.nan),
        recall=recall,
        positives=positives,
    )


def _threshold(truth: np.ndarray, scores: np.ndarray, choose: _Choose) -> np.float32:
    """Finds one threshold on bool [n] and float32 [n]."""
    from sklearn.metrics import confusion_matrix_at_thresholds

    # precision_recall_curve returns ratios of these counts, whose rounding would break ties of F1.
    _, false_alarms, _, hits, levels = confusion_matrix_at_thresholds(truth, scores)
    chosen = choose(hits, hits + false_alarms, int(truth.sum()))
    if chosen is None:
        return np.float32(1.0)
    lowest = np.float32(levels[chosen])
    below = np.float32(levels[chosen + 1]) if chosen + 1 < len(levels) else np.float32(0.0)
    middle = np.float32((float(lowest) + float(below)) / 2.0)
    # No float32 lies between neighbours, so the middle may round down to the lower one.
    return middle if middle > below else lowest
