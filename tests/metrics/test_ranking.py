"""Ranking metrics against their definitions, written out in loops, and scikit-learn."""

import math
import statistics
import sys

import numpy as np
import pytest
import sklearn.metrics

from sat_jax.errors import SatError
from sat_jax.metrics.ranking import check_sklearn, compute_metrics


def random_case(seed, *, ties, clips=40, classes=9):
    """Targets in which class 0 has no positive clip, class 1 no negative one."""
    rng = np.random.default_rng(seed)
    targets = rng.random((clips, classes)) < rng.uniform(0.05, 0.8, classes)
    targets[:, 0], targets[:, 1] = False, True
    targets[0, 2:] = np.arange(classes - 2) % 2 == 0  # Each other class has both.
    targets[1, 2:] = ~targets[0, 2:]
    scores = rng.integers(0, 4, (clips, classes)) / 3 if ties else rng.random((clips, classes))
    return targets, scores.astype(np.float32)


CASES = [random_case(seed, ties=ties) for seed in range(4) for ties in (False, True)]


def average_precision_by_definition(truth, scores):
    """Precision at each threshold, weighted by the recall that it adds."""
    total, recall_before = 0.0, 0.0
    for threshold in sorted(set(scores.tolist()), reverse=True):
        found = scores >= threshold
        precision = (truth & found).sum() / found.sum()
        recall = (truth & found).sum() / truth.sum()
        total += (recall - recall_before) * precision
        recall_before = recall
    return total


def auc_by_definition(truth, scores):
    """How often a positive clip beats a negative one; a draw counts half."""
    pairs = [(p, n) for p in scores[truth] for n in scores[~truth]]
    return sum(1.0 if p > n else 0.5 if p == n else 0.0 for p, n in pairs) / len(pairs)


def lwlrap_by_definition(targets, scores):
    """Mean over all labels of the share of own labels among those ranked as high."""
    precisions = []
    for truth, row in zip(targets, scores, strict=True):
        for label in np.flatnonzero(truth):
            as_high = row >= row[label]
            precisions.append((truth & as_high).sum() / as_high.sum())
    return sum(precisions) / len(precisions)


@pytest.mark.parametrize(("targets", "scores"), CASES)
def test_metrics_follow_their_definitions(targets, scores):
    metrics = compute_metrics(targets, scores)
    columns = list(zip(targets.T, scores.T, strict=True))
    precisions = [average_precision_by_definition(*columns[i]) for i in range(1, len(columns))]
    aucs = [auc_by_definition(*columns[i]) for i in range(2, len(columns))]
    np.testing.assert_allclose(metrics.average_precision, [np.nan, *precisions], rtol=1e-12)
    np.testing.assert_allclose(metrics.roc_auc, [np.nan, np.nan, *aucs], rtol=1e-12)
    assert metrics.mean_average_precision == pytest.approx(statistics.fmean(precisions), rel=1e-12)
    assert metrics.mean_auc == pytest.approx(statistics.fmean(aucs), rel=1e-12)
    assert metrics.lwlrap == pytest.approx(lwlrap_by_definition(targets, scores), rel=1e-12)
    assert metrics.num_clips == len(targets)
    assert metrics.positives.tolist() == [int(column.sum()) for column in targets.T]
    assert (metrics.classes_without_positives, metrics.classes_without_negatives) == (1, 1)


@pytest.mark.parametrize(("targets", "scores"), CASES)
def test_metrics_equal_those_of_scikit_learn_on_the_whole_matrix(targets, scores):
    metrics = compute_metrics(targets, scores)
    assert metrics.mean_average_precision == pytest.approx(
        sklearn.metrics.average_precision_score(targets[:, 1:], scores[:, 1:]), rel=1e-12
    )
    assert metrics.mean_auc == pytest.approx(
        sklearn.metrics.roc_auc_score(targets[:, 2:], scores[:, 2:]), rel=1e-12
    )


def test_the_order_of_clips_does_not_matter():
    targets, scores = random_case(7, ties=True)
    one = compute_metrics(targets, scores)
    other = compute_metrics(targets[::-1], scores[::-1])
    np.testing.assert_array_equal(one.average_precision, other.average_precision)
    np.testing.assert_array_equal(one.roc_auc, other.roc_auc)
    assert one.lwlrap == pytest.approx(other.lwlrap, rel=1e-12)


def test_dprime_is_the_distance_of_two_normal_distributions():
    distance = 1.3
    normal = statistics.NormalDist()
    # Equally likely values of each: their AUC is Φ(distance / √2) up to the coarse steps.
    steps = [normal.inv_cdf((i + 0.5) / 400) for i in range(400)]
    scores = np.array([*steps, *(step + distance for step in steps)])[:, None]
    targets = np.repeat([[False], [True]], 400, axis=0)
    metrics = compute_metrics(targets, scores)
    assert metrics.mean_auc == pytest.approx(normal.cdf(distance / math.sqrt(2)), abs=2e-3)
    assert metrics.dprime == pytest.approx(distance, abs=0.01)


def test_clips_without_labels_are_negatives_and_weigh_nothing_in_lwlrap():
    targets, scores = random_case(3, ties=False)
    silent = np.zeros((5, targets.shape[1]), bool)
    loud = np.ones((5, targets.shape[1]), np.float32)
    before = compute_metrics(targets, scores)
    after = compute_metrics(np.concatenate([targets, silent]), np.concatenate([scores, loud]))
    assert after.lwlrap == pytest.approx(before.lwlrap, rel=1e-12)
    assert after.mean_average_precision < before.mean_average_precision
    assert after.classes_without_negatives == 0


@pytest.mark.parametrize("sign", [1, -1])
def test_an_infinite_dprime_is_none(sign):
    targets = np.array([[True, False], [False, True]])
    metrics = compute_metrics(targets, sign * targets.astype(np.float32))
    assert metrics.mean_auc == (1.0 if sign == 1 else 0.0)
    assert metrics.dprime is None


def test_one_clip_has_precision_but_no_auc():
    metrics = compute_metrics(np.array([[True, False, False]]), np.array([[0.2, 0.9, 0.1]]))
    assert metrics.mean_average_precision == 1.0
    assert metrics.lwlrap == 0.5
    assert (metrics.mean_auc, metrics.dprime) == (None, None)


@pytest.mark.parametrize("clips", [0, 3])
def test_clips_without_labels(clips):
    with pytest.raises(SatError, match=f"{clips} clips"):
        compute_metrics(np.zeros((clips, 4), bool), np.zeros((clips, 4)))


def test_shapes_that_differ():
    with pytest.raises(SatError, match=r"\[3, 4\].*\[3, 5\]"):
        compute_metrics(np.ones((3, 4), bool), np.zeros((3, 5)))


def test_without_scikit_learn(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.metrics", None)
    with pytest.raises(SatError, match=r"sat-jax\[evaluate\]"):
        check_sklearn()
    with pytest.raises(SatError, match=r"sat-jax\[evaluate\]"):
        compute_metrics(np.ones((1, 1), bool), np.zeros((1, 1)))
