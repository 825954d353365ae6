"""From which score on a class counts as heard: a threshold for each class.

A class is tagged where its score is the threshold or more. Scores are float32 and compared as such.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

from sat_jax.errors import SatError
from sat_jax.metrics.ranking import check_sklearn


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Thresholds:
    """A threshold for each class, and what it does with the clips that it was found with.

    Attributes:
      values: [y] float32 in [0, 1].
      f1: [y] float64 in [0, 1]; NaN for a class without positive clips, as are the next two.
      precision: [y] float64 in [0, 1]; NaN besides where no clip reaches the threshold.
      recall: [y] float64 in [0, 1].
      positives: [y] int64, clips that each class is heard in.
    """

    values: np.ndarray
    f1: np.ndarray
    precision: np.ndarray
    recall: np.ndarray
    positives: np.ndarray


# What is best of the counts at each score, highest score first: true positives, clips taken and all
# positives -> the index, or None where no score will do.
_Choose = Callable[[np.ndarray, np.ndarray, int], int | None]


def best_f1_thresholds(targets: np.ndarray, scores: np.ndarray) -> Thresholds:
    """The threshold of each class with the highest F1, the harmonic mean of precision and recall.

    Of several the highest. It lies midway between the lowest score taken and the next lower one (or
    0), so that no score changes sides by a rounding error. A class without positive clips gets the
    threshold with the highest micro-averaged F1 of all others.

    Args:
      targets: bool [n, y], which classes are heard in each of n clips.
      scores: [n, y] in [0, 1].

    Raises:
      SatError: shapes differ, a score is no probability, no clip has a label, or scikit-learn is
        missing.
    """
    return _thresholds(targets, scores, _highest_f1)


def precision_thresholds(
    targets: np.ndarray, scores: np.ndarray, *, precision: float = 0.9
) -> Thresholds:
    """The threshold of each class that has this precision, with the highest recall.

    As `best_f1_thresholds`, but a class that reaches the precision nowhere gets 1.0: it is tagged
    only where its score is 1.0 exactly, which float32 makes of a model's greatest certainty. Its
    `precision` then tells what comes of that: too little, or NaN where there is no such score. A
    class without positive clips gets the threshold where all others together reach the precision.

    Args:
      targets: bool [n, y], which classes are heard in each of n clips.
      scores: [n, y] in [0, 1].
      precision: least share of clips tagged with a class that it is heard in, in (0, 1].

    Raises:
      SatError: as `best_f1_thresholds`, or the precision is out of range.
    """
    if not 0.0 < precision <= 1.0:
        raise SatError(f"precision={precision} is no share: give a number above 0, at most 1")

    def highest_recall(hits: np.ndarray, taken: np.ndarray, positives: int) -> int | None:
        del positives  # Recall is highest where most hits are.
        precise = hits / taken >= precision
        return int(np.argmax(np.where(precise, hits, -1))) if precise.any() else None

    return _thresholds(targets, scores, highest_recall)


def _highest_f1(hits: np.ndarray, taken: np.ndarray, positives: int) -> int:
    return int(np.argmax(2 * hits / (taken + positives)))


def _thresholds(targets: np.ndarray, scores: np.ndarray, choose: _Choose) -> Thresholds:
    check_sklearn()
    truth, scores = np.asarray(targets, bool), np.asarray(scores, np.float32)
    _check(truth, scores)
    positives = truth.sum(0, dtype=np.int64)
    heard = positives > 0
    values = np.empty(len(positives), np.float32)
    for index in np.flatnonzero(heard):
        values[index] = _threshold(truth[:, index], scores[:, index], choose)
    if not heard.all():
        values[~heard] = _threshold(truth[:, heard].ravel(), scores[:, heard].ravel(), choose)
    passing = scores >= values
    hits, taken = (truth & passing).sum(0), passing.sum(0)
    with np.errstate(invalid="ignore"):  # 0 / 0 is the NaN of a class that is never tagged.
        precision = hits / taken
        recall = hits / positives
    return Thresholds(
        values=values,
        f1=np.where(heard, 2 * hits / np.maximum(taken + positives, 1), np.nan),
        precision=np.where(heard, precision, np.nan),
        recall=recall,
        positives=positives,
    )


def _check(truth: np.ndarray, scores: np.ndarray) -> None:
    if truth.shape != scores.shape or truth.ndim != 2:
        raise SatError(
            f"labels of shape {list(truth.shape)} do not fit scores of shape "
            f"{list(scores.shape)}: both are [clips, classes]"
        )
    if not truth.any():
        raise SatError(f"none of the {len(truth)} clips has a label: no threshold can be found")
    if not np.all((scores >= 0.0) & (scores <= 1.0)):  # NaN is neither.
        raise SatError("thresholds are found among probabilities: scores lie outside of 0 to 1")


def _threshold(truth: np.ndarray, scores: np.ndarray, choose: _Choose) -> np.float32:
    """The threshold of bool [n], float32 [n]."""
    from sklearn.metrics import confusion_matrix_at_thresholds

    # precision_recall_curve gives these counts divided, and equal F1 would differ by rounding.
    _, false_hits, _, hits, levels = confusion_matrix_at_thresholds(truth, scores)
    chosen = choose(hits, hits + false_hits, int(truth.sum()))
    if chosen is None:
        return np.float32(1.0)
    lowest = np.float32(levels[chosen])
    below = np.float32(levels[chosen + 1]) if chosen + 1 < len(levels) else np.float32(0.0)
    middle = np.float32((float(lowest) + float(below)) / 2.0)
    # Between neighbours in float32 there is nothing: the middle may be rounded down.
    return middle if middle > below else lowest
