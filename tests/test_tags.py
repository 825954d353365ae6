import re

import numpy as np
import pytest

from sat_jax.errors import SatError
from sat_jax.tags import TagSelection

LABELS = ["Stream", "Trickle, dribble", "Boat, Water vehicle", "Ocean", "Waves, surf"]


@pytest.mark.parametrize("seed", range(5))
def test_tags_are_those_of_a_plain_sort(seed):
    rng = np.random.default_rng(seed)
    probs = rng.integers(0, 6, 20).astype(np.float32) / 8  # many ties
    thresholds = rng.integers(0, 6, 20) / 8
    for threshold in (None, 0.25, thresholds):
        least = np.broadcast_to(-1.0 if threshold is None else threshold, 20)
        expected = sorted(
            (i for i in range(20) if probs[i] >= least[i]), key=lambda i: (-probs[i], i)
        )
        for k in (1, 3, 20, 99):
            selection = TagSelection(labels=[f"c{i}" for i in range(20)], k=k, threshold=threshold)
            tags = selection.tags(probs)
            assert [tag.index for tag in tags] == expected[:k]
            assert [tag.label for tag in tags] == [f"c{i}" for i in expected[:k]]


def test_a_probability_equal_to_the_threshold_passes():
    for threshold in (0.3, np.array([0.3])):
        selection = TagSelection(labels=["x"], threshold=threshold)
        assert len(selection.tags(np.array([0.3], np.float32))) == 1
        assert not selection.tags(np.array([np.nextafter(np.float32(0.3), 0)], np.float32))


def test_classes_are_chosen_before_the_strongest_are_counted():
    probs = np.array([0.1, 0.9, 0.3, 0.8, 0.5], np.float32)
    for threshold in (0.2, np.full(5, 0.2)):
        selection = TagSelection(
            labels=LABELS, k=2, threshold=threshold, only=LABELS[:4], without=["ocean"]
        )
        assert [tag.index for tag in selection.tags(probs)] == [1, 2]
    assert [tag.mid for tag in TagSelection(labels=["Ocean", "x"], k=2).tags(probs[:2])] == [
        "",
        "/m/05kq4",
    ]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"k": 0}, "k=0"),
        ({"only": ["Steam"]}, "Stream"),
        ({"threshold": 1.5}, "threshold=1.5"),
        ({"threshold": -0.1}, "threshold=-0.1"),
        ({"threshold": float("nan")}, "threshold=nan"),
        ({"threshold": np.zeros(4)}, "(4,)"),
    ],
)
def test_selection_out_of_range(arguments, named):
    with pytest.raises(SatError, match=re.escape(named)):
        TagSelection(labels=LABELS, **arguments)


def test_labels_of_another_model():
    with pytest.raises(SatError, match=r"\(7,\)"):
        TagSelection(labels=LABELS).tags(np.zeros(7))
