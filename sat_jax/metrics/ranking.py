"""How good scores are: ranking measures of multi-label tagging.

They depend on the order of all scores, so they are computed once from the scores of all clips,
never averaged over batches.
"""

import dataclasses
import math
import statistics

import numpy as np

from sat_jax.errors import SatError


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Metrics:
    """Measures of the scores of some clips.

    Attributes:
      num_clips: clips measured.
      positives: [y] int64, clips that each class is heard in.
      average_precision: [y] float64 in [0, 1]; NaN where a class has no positive clip.
      roc_auc: [y] float64 in [0, 1]; NaN where a class has no positive or no negative clip.
      lwlrap: label-weighted label-ranking average precision: over all labels of all clips, the
        mean share of a clip's own labels among those it scores at least as high. In (0, 1].
    """

    num_clips: int
    positives: np.ndarray
    average_precision: np.ndarray
    roc_auc: np.ndarray
    lwlrap: float

    @property
    def classes_without_positives(self) -> int:
        """Classes left out of `mean_average_precision`."""
        return int((self.positives == 0).sum())

    @property
    def classes_without_negatives(self) -> int:
        """Classes left out of `mean_auc` besides."""
        return int((self.positives == self.num_clips).sum())

    @property
    def mean_average_precision(self) -> float:
        """Mean over the classes that have positive clips."""
        return float(np.nanmean(self.average_precision))

    @property
    def mean_auc(self) -> float | None:
        """Mean over the classes that have positive and negative clips; None if there is none."""
        return None if np.isnan(self.roc_auc).all() else float(np.nanmean(self.roc_auc))

    @property
    def dprime(self) -> float | None:
        """How far apart two normal distributions with this `mean_auc` are, in deviations.

        √2·Φ⁻¹(mean_auc); None where that is infinite (`mean_auc` is 0 or 1) or there is no AUC.
        """
        auc = self.mean_auc
        if auc is None or not 0.0 < auc < 1.0:
            return None
        return math.sqrt(2.0) * statistics.NormalDist().inv_cdf(auc)


def check_sklearn() -> None:
    """Refuses early, before hours of audio are scored, what `compute_metrics` could not do.

    Raises:
      SatError: scikit-learn is missing.
    """
    try:
        import sklearn.metrics  # noqa: F401
    except ImportError as error:
        raise SatError(
            "measuring needs scikit-learn, which is not installed: pip install 'sat-jax[evaluate]'"
        ) from error


def compute_metrics(targets: np.ndarray, scores: np.ndarray) -> Metrics:
    """Measures how well scores rank clips within a class, and classes within a clip.

    Clips with the same score for a class count as found together.

    Args:
      targets: bool [n, y], which classes are heard in each of n clips.
      scores: float [n, y], finite; only their order counts.

    Raises:
      SatError: the shapes differ, or there is no clip with a label.
    """
    check_sklearn()
    from sklearn.metrics import average_precision_score, label_ranking_average_precision_score

    if targets.shape != scores.shape:
        raise SatError(
            f"labels of shape {list(targets.shape)} do not fit scores of shape "
            f"{list(scores.shape)}: both are [clips, classes]"
        )
    truth = targets.astype(np.int8)
    positives = truth.sum(0, dtype=np.int64)
    if not positives.any():
        raise SatError(f"none of the {len(truth)} clips has a label: there is nothing to measure")
    average_precision = np.full(len(positives), np.nan)
    for index in np.flatnonzero(positives):
        average_precision[index] = average_precision_score(truth[:, index], scores[:, index])
    # Clips without a label would count as perfectly ranked; here they weigh nothing.
    # SciPy from 1.18 on ranks in the precision of what it is given.
    ranked = scores.astype(np.float64)
    lwlrap = label_ranking_average_precision_score(truth, ranked, sample_weight=truth.sum(1))
    return Metrics(
        num_clips=len(truth),
        positives=positives,
        average_precision=average_precision,
        roc_auc=_roc_auc(truth, scores, positives),
        lwlrap=float(lwlrap),
    )


def _roc_auc(truth: np.ndarray, scores: np.ndarray, positives: np.ndarray) -> np.ndarray:
    from sklearn.metrics import roc_auc_score

    auc = np.full(len(positives), np.nan)
    for index in np.flatnonzero((positives > 0) & (positives < len(truth))):
        auc[index] = roc_auc_score(truth[:, index], scores[:, index])
    return auc
