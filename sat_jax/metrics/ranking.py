"""Ranking metrics of multi-label tagging: mAP, AUC, d' and lwlrap.

They depend on the order of all scores. Compute them once from the scores of all clips, never as a
mean over batches.
"""

import dataclasses
import math
import statistics

import numpy as np

from sat_jax.errors import SatError


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Metrics:
    """Ranking metrics of n clips.

    Attributes:
      num_clips: n.
      positives: int64 [y], clips labelled with each class.
      average_precision: float64 [y] in [0, 1]; NaN for a class without positive clips.
      roc_auc: float64 [y] in [0, 1], area under the ROC curve; NaN for a class without positive or
        without negative clips.
      lwlrap: label-weighted label-ranking average precision, in (0, 1]: for each label of each
        clip, the share of the clip's labels among the classes scored at least as high; then the
        mean over all labels. Source: DCASE 2019, task 2.
    """

    num_clips: int
    positives: np.ndarray
    average_precision: np.ndarray
    roc_auc: np.ndarray
    lwlrap: float

    @property
    def classes_without_positives(self) -> int:
        """Number of classes that `mean_average_precision` and `mean_auc` leave out."""
        return int((self.positives == 0).sum())

    @property
    def classes_without_negatives(self) -> int:
        """Number of further classes that `mean_auc` leaves out."""
        return int((self.positives == self.num_clips).sum())

    @property
    def mean_average_precision(self) -> float:
        """Mean over the classes that have positive clips: mAP, in [0, 1]."""
        return float(np.nanmean(self.average_precision))

    @property
    def mean_auc(self) -> float | None:
        """Mean over the classes with positive and negative clips; None if there is none."""
        return None if np.isnan(self.roc_auc).all() else float(np.nanmean(self.roc_auc))

    @property
    def dprime(self) -> float | None:
        """Sensitivity index √2·Φ⁻¹(mean_auc); None without an AUC, or where it is infinite.

        It is the distance, in standard deviations, of two normal distributions with this AUC.
        """
        auc = self.mean_auc
        if auc is None or not 0.0 < auc < 1.0:
            return None
        return math.sqrt(2.0) * statistics.NormalDist().inv_cdf(auc)


def check_sklearn() -> None:
    """Checks that `compute_metrics` can run, before hours of audio are scored.

    Raises:
      SatError: scikit-learn is missing.
    """
    try:
        import sklearn.metrics  # noqa: F401
    except ImportError as error:
        raise SatError("metrics need scikit-learn: pip install 'sat-jax[evaluate]'") from error


def compute_metrics(targets: np.ndarray, scores: np.ndarray) -> Metrics:
    """Computes ranking metrics with scikit-learn; equal scores share a rank.

    Args:
      targets: bool [n, y], the labels of n clips.
      scores: float [n, y], finite; only their order counts.

    Raises:
      SatError: the shapes differ, no clip has a label, or scikit-learn is missing.
    """
    check_sklearn()
    from sklearn.metrics import average_precision_score, label_ranking_average_precision_score

    check_targets(targets, scores)
    truth = targets.astype(np.int8)
    positives = truth.sum(0, dtype=np.int64)
    average_precision = np.full(len(positives), np.nan)
    for index in np.flatnonzero(positives):
        average_precision[index] = average_precision_score(truth[:, index], scores[:, index])
    # scikit-learn scores a clip without labels as 1; its weight here is 0.
    # SciPy from 1.18 on ranks in the precision of its input.
    ranked = scores.astype(np.float64)
    lwlrap = label_ranking_average_precision_score(truth, ranked, sample_weight=truth.sum(1))
    return Metrics(
        num_clips=len(truth),
        positives=positives,
        average_precision=average_precision,
        roc_auc=_roc_auc(truth, scores, positives),
        lwlrap=float(lwlrap),
    )


def check_targets(targets: np.ndarray, scores: np.ndarray) -> None:
    """Checks that labels and scores are both [n, y], and that some clip has a label.

    Raises:
      SatError: they are not.
    """
    if targets.shape != scores.shape or targets.ndim != 2:
        raise SatError(
            f"labels of shape {list(targets.shape)} do not fit scores of shape "
            f"{list(scores.shape)}: give both as [clips, classes]"
        )
    if not targets.any():
        raise SatError(f"none of the {len(targets)} clips has a label: give labelled clips")


def _roc_auc(truth: np.ndarray, scores: np.ndarray, positives: np.ndarray) -> np.ndarray:
    from sklearn.metrics import roc_auc_score

    auc = np.full(len(positives), np.nan)
    for index in np.flatnonzero((positives > 0) & (positives < len(truth))):
        auc[index] = roc_auc_score(truth[:, index], scores[:, index])
    return auc
