"""Stability of chunk scores against its definition, written out in loops."""

import itertools
import weakref

import numpy as np
import pytest

from sat_jax.errors import SatError
from sat_jax.metrics.stability import measure_stability

CLASSES = 6


def random_clips(seed, clips=30):
    """Class 0 is in no clip, class 1 only in clips of one chunk."""
    rng = np.random.default_rng(seed)
    for index in range(clips):
        chunks = 1 if index % 4 == 0 else int(rng.integers(2, 7))
        probs = rng.random((chunks, CLASSES), np.float32)
        labels = np.flatnonzero(rng.random(CLASSES) < 0.5)
        yield probs, labels[labels >= (1 if chunks == 1 else 2)]


def pairs_by_definition(clips, threshold):
    """(class, mean square change or None, share above) of every active pair."""
    for probs, labels in clips:
        for label in labels:
            score = [float(row[label]) for row in probs]
            squares = [(after - before) ** 2 for before, after in itertools.pairwise(score)]
            least = np.float32(np.broadcast_to(threshold, CLASSES)[label])
            yield (
                int(label),
                sum(squares) / len(squares) if squares else None,
                sum(value >= least for value in score) / len(score),
            )


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("threshold", [0.5, np.linspace(0.1, 0.9, CLASSES)])
def test_stability_follows_its_definition(seed, threshold):
    measured = measure_stability(random_clips(seed), num_classes=CLASSES, threshold=threshold)
    pairs = list(pairs_by_definition(random_clips(seed), threshold))
    squares = [square for _, square, _ in pairs if square is not None]
    assert measured.mean_squared_change == pytest.approx(np.mean(squares), rel=1e-12)
    assert measured.mean_share_above == pytest.approx(
        np.mean([share for *_, share in pairs]), rel=1e-12
    )
    for index in range(CLASSES):
        shares = [share for label, _, share in pairs if label == index]
        squares = [sq for label, sq, _ in pairs if label == index and sq is not None]
        assert measured.pairs[index] == len(shares)
        assert measured.pairs_with_changes[index] == len(squares)
        for values, got in (
            (shares, measured.share_above[index]),
            (squares, measured.squared_change[index]),
        ):
            assert got == pytest.approx(
                np.mean(values) if values else np.nan, rel=1e-12, nan_ok=True
            )
    assert measured.pairs[0] == 0 and measured.pairs[1] > 0 == measured.pairs_with_changes[1]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_score_that_is_the_threshold_counts_as_above(dtype):
    probs = np.array([[0.3], [0.29999998]], dtype)  # In float64, 0.3 is under its float32.
    measured = measure_stability([(probs, [0])], num_classes=1, threshold=0.3)
    assert measured.mean_share_above == 0.5


def test_constant_and_alternating_scores():
    steady = measure_stability([(np.full((5, 2), 0.7), [0, 1])], num_classes=2)
    assert (steady.mean_squared_change, steady.mean_share_above) == (0.0, 1.0)
    jumping = measure_stability([(np.array([[0.0], [1.0], [0.0]]), [0])], num_classes=1)
    assert jumping.mean_squared_change == 1.0


def test_without_labels_the_numbers_are_none():
    measured = measure_stability([(np.ones((3, 2)), [])], num_classes=2)
    assert (measured.mean_squared_change, measured.mean_share_above) == (None, None)
    assert np.isnan(measured.squared_change).all() and np.isnan(measured.share_above).all()
    single = measure_stability([(np.ones((1, 2)), [1])], num_classes=2)
    assert (single.mean_squared_change, single.mean_share_above) == (None, 1.0)


def test_one_clip_is_held_at_a_time():
    references = []

    def clips():
        for _ in range(20):
            assert sum(reference() is not None for reference in references) <= 1
            probs = np.zeros((2, 1))
            references.append(weakref.ref(probs))
            yield probs, [0]
            del probs

    assert measure_stability(clips(), num_classes=1).pairs.tolist() == [20]


@pytest.mark.parametrize(
    ("clip", "threshold", "named"),
    [
        ((np.zeros((2, 3)), [0]), 0.5, r"\[2, 3\]"),
        ((np.zeros((0, 2)), [0]), 0.5, r"\[0, 2\]"),
        ((np.zeros((2, 2)), [0, 2]), 0.5, "label 2"),
        ((np.zeros((2, 2)), [-1]), 0.5, "label -1"),
        ((np.zeros((2, 2)), [0]), np.zeros(3), r"\[3\]"),
    ],
)
def test_invalid_input(clip, threshold, named):
    with pytest.raises(SatError, match=named):
        measure_stability([clip], num_classes=2, threshold=threshold)
