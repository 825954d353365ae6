"""Segment mAP of continuing and of new sounds, against their definition."""

import numpy as np
import pytest

from projects.box_model.measure_memory import MIN_POSITIVES, continuing_and_new, whole_scenes
from sat_jax.labels import Event
from sat_jax.metrics.strong import TimedClip


def average_precision(truth, scores):
    """Mean, over positives, of the share of positives among all with at least that score."""
    return np.mean([truth[scores >= own].mean() for own in scores[truth]])


def measured_one_by_one(clips, scores, wanted):
    values = []
    for index in range(scores.shape[1]):
        kinds = []
        for clip in clips:
            before = False
            for start, end in zip(clip.start, clip.end, strict=True):
                spans = [(e.onset, e.offset) for e in clip.events if e.class_index == index]
                present = any(onset < end and offset > start for onset, offset in spans)
                kinds.append(("continuing" if before else "new") if present else "none")
                before = present
        kinds = np.array(kinds)
        chosen = (kinds == wanted) | (kinds == "none")
        if (kinds == wanted).sum() >= MIN_POSITIVES:
            truth, column = (kinds == wanted)[chosen], scores[chosen, index]
            values.append(average_precision(truth, column))
    return values


def test_both_kinds_equal_their_definition():
    rng = np.random.default_rng(0)
    clips = []
    for _ in range(100):
        events = []
        for _ in range(rng.integers(4)):
            onset, seconds = rng.uniform(0, 8), rng.uniform(0.5, 6)
            events.append(Event(int(rng.integers(5)), onset, onset + seconds))
        start = np.arange(rng.integers(1, 6)) * 2.0
        scores = rng.integers(20, size=(len(start), 7)) / 20  # With ties.
        clips.append(TimedClip(start=start, end=start + 2.0, scores=scores, events=events))
    scores = np.concatenate([clip.scores for clip in clips])
    found = continuing_and_new(clips)
    assert list(found) == ["continuing", "new"]
    for kind, result in found.items():
        values = measured_one_by_one(clips, scores, kind)
        assert 0 < len(values) <= 5
        assert result["classes"] == len(values)
        assert result["mAP"] == pytest.approx(np.mean(values))


def test_few_positives_are_not_measured():
    start = np.arange(5) * 2.0
    clip = TimedClip(
        start=start, end=start + 2.0, scores=np.zeros((5, 1)), events=[Event(0, 0.0, 10.0)]
    )
    found = continuing_and_new([clip] * 3)
    assert found == {"continuing": {"classes": 1, "mAP": 1.0}, "new": {"classes": 0, "mAP": None}}


def test_whole_scenes_are_ranked_by_their_mean_chunk():
    scores = [[[0.9, 0.0], [0.1, 0.0]], [[0.4, 0.0], [0.4, 0.0]], [[0.2, 0.0], [0.5, 0.0]]]
    start = np.arange(2) * 2.0
    clips = [
        TimedClip(start=start, end=start + 2.0, scores=np.array(probs), events=[])
        for probs in scores
    ]
    # Means of class 0: 0.5, 0.4, 0.35. Its positives have ranks 1 and 3.
    targets = np.array([[True, False], [False, False], [True, False]])
    expected = (1 / 1 + 2 / 3) / 2
    assert whole_scenes(clips, targets) == {"classes": 1, "mAP": pytest.approx(expected)}
    assert whole_scenes(clips, targets & False) == {"classes": 0, "mAP": None}
