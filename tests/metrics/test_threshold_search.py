"""Thresholds of classes: no other one does better, and rounding does not matter."""

import sys

import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sat_jax.errors import SatError
from sat_jax.metrics.threshold_search import best_f1_thresholds, precision_thresholds
from sat_jax.tags import TagSelection

PROBABILITIES = st.floats(0.0, 1.0, width=32)


@st.composite
def cases(draw):
    """Targets with at least one label, and scores with ties, neighbours, zeros and ones."""
    shape = draw(st.tuples(st.integers(1, 12), st.integers(1, 4)))
    targets = draw(hnp.arrays(bool, shape))
    targets[0, 0] = True
    few = draw(st.lists(PROBABILITIES, min_size=1, max_size=4))
    few += [float(np.nextafter(np.float32(value), np.float32(0.5))) for value in few] + [0.0, 1.0]
    scores = draw(hnp.arrays(np.float32, shape, elements=st.sampled_from(few)))
    return targets, scores


def counts(truth, scores, threshold):
    found = scores >= threshold
    return int((truth & found).sum()), int(found.sum()), int(truth.sum())


def f1(hits, taken, positives):
    return 2 * hits / (taken + positives)


def divisions(truth, scores):
    """Counts at each distinct score, highest first, and that score."""
    return [(counts(truth, scores, level), level) for level in sorted(set(scores.ravel()))[::-1]]


def of_class(targets, scores, index):
    """The column of a class; all columns with positives for a class without."""
    if targets[:, index].any():
        return targets[:, index], scores[:, index]
    others = targets.any(0)
    return targets[:, others], scores[:, others]


def check_place(threshold, level, scores):
    """It lies midway between the lowest detected score and the next one, and divides them."""
    below = max((score for score in scores.ravel() if score < level), default=np.float32(0))
    assert threshold.dtype == np.float32
    assert ((scores >= threshold) == (scores >= level)).all()
    middle = (float(below) + float(level)) / 2
    assert abs(float(threshold) - middle) <= np.spacing(level)


@settings(max_examples=100, deadline=None)
@given(cases())
def test_no_threshold_has_a_higher_f1(case):
    targets, scores = case
    result = best_f1_thresholds(targets, scores)
    for index, threshold in enumerate(result.values):
        truth, column = of_class(targets, scores, index)
        best = max(f1(*counted) for counted, _ in divisions(truth, column))
        highest = next(level for counted, level in divisions(truth, column) if f1(*counted) == best)
        assert f1(*counts(truth, column, threshold)) == best
        check_place(threshold, highest, column)


@settings(max_examples=100, deadline=None)
@given(cases(), st.sampled_from([0.3, 0.5, 0.75, 0.9, 1.0]))
def test_no_threshold_of_that_precision_has_a_higher_recall(case, precision):
    targets, scores = case
    result = precision_thresholds(targets, scores, precision=precision)
    for index, threshold in enumerate(result.values):
        truth, column = of_class(targets, scores, index)
        good = [each for each in divisions(truth, column) if each[0][0] / each[0][1] >= precision]
        if not good:
            assert threshold == 1.0
            continue
        most = max(hits for (hits, _, _), _ in good)
        check_place(threshold, next(level for (hits, _, _), level in good if hits == most), column)


@settings(max_examples=50, deadline=None)
@given(cases())
def test_numbers_equal_those_of_scikit_learn(case):
    targets, scores = case
    for result in (best_f1_thresholds(targets, scores), precision_thresholds(targets, scores)):
        assert result.positives.tolist() == targets.sum(0).tolist()
        for index, threshold in enumerate(result.values):
            got = (result.precision[index], result.recall[index], result.f1[index])
            truth, found = targets[:, index], scores[:, index] >= threshold
            if not truth.any():
                assert np.isnan(got).all()
                continue
            wanted = sklearn.metrics.precision_recall_fscore_support(
                truth, found, average="binary", zero_division=np.nan
            )[:3]
            if not found.any():
                wanted = (np.nan, 0.0, 0.0)
            np.testing.assert_allclose(got, wanted, rtol=1e-12)


@settings(max_examples=50, deadline=None)
@given(cases())
def test_tagging_uses_the_same_comparison(case):
    targets, scores = case
    values = best_f1_thresholds(targets, scores).values
    names = [str(index) for index in range(len(values))]
    selection = TagSelection(labels=names, k=len(names), threshold=values)
    for row in scores:
        assert {tag.index for tag in selection.tags(row)} == set(np.flatnonzero(row >= values))


@pytest.mark.parametrize("find", [best_f1_thresholds, precision_thresholds])
def test_scores_that_are_one_float32_are_one_score(find):
    targets = np.array([[True], [False], [True], [False]])
    scores = np.array([[0.3 + 1e-12], [0.3], [0.9], [0.1]])
    found, wanted = find(targets, scores), find(targets, scores.astype(np.float32))
    for field in ("values", "f1", "precision", "recall"):
        np.testing.assert_array_equal(getattr(found, field), getattr(wanted, field))
    assert found.values.dtype == np.float32


def test_neighbours_in_float32_are_kept_apart():
    for low in np.float32([0.1, 0.2, 0.3, 0.5, 0.999, 1e-30]):
        for _ in range(2):  # One of two neighbours has an odd last bit.
            high = np.nextafter(low, np.float32(1))
            result = best_f1_thresholds(np.array([[False], [True]]), np.array([[low], [high]]))
            assert low < result.values[0] <= high
            low = high


def test_below_the_lowest_score_the_threshold_is_half_of_it():
    result = best_f1_thresholds(np.array([[True], [True]]), np.float32([[0.4], [0.9]]))
    assert result.values.tolist() == pytest.approx([0.2])
    assert (result.f1[0], result.precision[0], result.recall[0]) == (1.0, 1.0, 1.0)
    zero = best_f1_thresholds(np.array([[True], [True]]), np.float32([[0.0], [0.9]]))
    assert zero.values.tolist() == [0.0]


def test_a_precision_that_is_never_reached_gives_one():
    targets = np.array([[False, False], [True, True], [True, True]])
    scores = np.float32([[1.0, 0.9], [0.5, 0.4], [0.4, 0.3]])
    result = precision_thresholds(targets, scores, precision=0.95)
    assert result.values.tolist() == [1.0, 1.0]
    assert result.precision[0] == 0.0 and np.isnan(result.precision[1])
    assert result.recall.tolist() == result.f1.tolist() == [0.0, 0.0]


def test_classes_without_positives_get_the_threshold_of_all_others():
    rng = np.random.default_rng(0)
    targets = rng.random((60, 5)) < 0.3
    targets[:, [1, 3]] = False
    scores = (0.5 * targets + 0.5 * rng.random(targets.shape)).astype(np.float32)
    result = best_f1_thresholds(targets, scores)
    others = [0, 2, 4]
    wanted = best_f1_thresholds(targets[:, others].reshape(-1, 1), scores[:, others].reshape(-1, 1))
    assert result.values[1] == result.values[3] == wanted.values[0]
    found = scores[:, others] >= result.values[1]
    assert sklearn.metrics.f1_score(targets[:, others], found, average="micro") == wanted.f1[0]


@pytest.mark.parametrize("find", [best_f1_thresholds, precision_thresholds])
@pytest.mark.parametrize(
    ("targets", "scores", "named"),
    [
        (np.ones((2, 3), bool), np.zeros((2, 4)), r"\[2, 3\].*\[2, 4\]"),
        (np.zeros((2, 3), bool), np.zeros((2, 3)), "2 clips"),
        (np.ones((1, 2), bool), np.array([[0.5, 1.5]]), r"\[0, 1\]"),
        (np.ones((1, 2), bool), np.array([[-0.1, 0.5]]), r"\[0, 1\]"),
        (np.ones((1, 2), bool), np.array([[np.nan, 0.5]]), r"\[0, 1\]"),
    ],
)
def test_invalid_input(find, targets, scores, named):
    with pytest.raises(SatError, match=named):
        find(targets, scores)


@pytest.mark.parametrize("precision", [0.0, -1.0, 1.01, float("nan")])
def test_invalid_precision(precision):
    with pytest.raises(SatError, match=f"precision={precision}"):
        precision_thresholds(np.ones((1, 1), bool), np.ones((1, 1)), precision=precision)


def test_without_scikit_learn(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.metrics", None)
    with pytest.raises(SatError, match=r"sat-jax\[evaluate\]"):
        best_f1_thresholds(np.ones((1, 1), bool), np.ones((1, 1)))
