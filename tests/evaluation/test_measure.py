"""Metrics of runs against scikit-learn and loops over a tagger."""

import dataclasses
import shutil

import numpy as np
import pytest
import sklearn.metrics

from sat_jax.evaluation.measure import evaluate, measure_cost, save_class_thresholds
from sat_jax.evaluation.modes import Mode
from sat_jax.evaluation.score_store import ClipScores
from sat_jax.labels import Event
from sat_jax.tagger import Tagger
from sat_jax.weights.thresholds_file import load_thresholds
from tests.support.labelled_clips import LABELS, LENGTHS, PATCH, RATE, make_clips, run_mode, sounds

DELAY = 0.5


@pytest.fixture(scope="module")
def expected_scores(checkpoint):
    """Of each clip, float32 [k, y] of its chunks."""
    tagger = Tagger(checkpoint, chunk_seconds=DELAY)
    hop, scores = tagger.framing.hop, []
    for sound in sounds():
        rest = len(sound) % hop
        end = len(sound) - rest if rest < PATCH and len(sound) > hop else len(sound)
        scores.append(np.stack([chunk.probs for chunk in tagger.stream([sound[:end]])]))
    return scores


@pytest.mark.parametrize("aggregation", ["mean", "max", "last"])
def test_metrics_equal_scikit_learn_s(expected_scores, model, tmp_path, aggregation):
    run = run_mode(model, tmp_path, Mode(delay=DELAY, aggregation=aggregation))
    numbers = evaluate(run, threshold=0.4, rules={}, cost=None).to_dict()
    targets = make_clips().targets(len(LABELS))
    reduce = {"mean": lambda x: x.mean(0), "max": lambda x: x.max(0), "last": lambda x: x[-1]}
    scores = np.stack([reduce[aggregation](each) for each in expected_scores])
    some, both = targets.any(0), targets.any(0) & ~targets.all(0)
    expected = {
        "mAP": sklearn.metrics.average_precision_score(targets[:, some], scores[:, some]),
        "mAUC": sklearn.metrics.roc_auc_score(targets[:, both], scores[:, both]),
        "lwlrap": sklearn.metrics.label_ranking_average_precision_score(
            targets, scores, sample_weight=targets.sum(1)
        ),
    }
    for name, number in expected.items():
        assert numbers[name] == pytest.approx(number, rel=1e-9), name
    assert 0.0 < numbers["mAP"] < 1.0
    assert (numbers["clips_scored"], numbers["clips_missing"]) == (len(LENGTHS), 0)
    assert (numbers["classes_without_positives"], numbers["classes_without_negatives"]) == (1, 1)

    tracks = [
        probs[:, label]
        for probs, row in zip(expected_scores, targets, strict=True)
        for label in np.flatnonzero(row)
    ]
    changes = [np.mean(np.diff(track) ** 2) for track in tracks if len(track) > 1]
    stability = numbers["stability"]
    assert stability["mean_squared_change"] == pytest.approx(np.mean(changes), rel=1e-4)
    assert stability["share_above_threshold"] == pytest.approx(
        np.mean([np.mean(track >= 0.4) for track in tracks]), rel=1e-6
    )


def test_strong_labels_are_compared_chunk_by_chunk(expected_scores, model, checkpoint, tmp_path):
    events = {
        0: (Event(0, 0.1, 0.4), Event(2, 0.6, 1.0)),
        3: (Event(3, 0.0, 1.5),),
        8: (Event(1, 0.4, 0.6), Event(0, 1.2, 1.9)),
        4: (),
    }
    folder = shutil.copytree(model, tmp_path / "model")
    run = run_mode(folder, tmp_path, Mode(delay=DELAY), make_clips(events=events))
    strong = evaluate(run, threshold=0.3, rules={}, cost=None).to_dict()["strong"]
    targets, delays = [], []
    for index in sorted(events):
        scores, length = expected_scores[index], LENGTHS[index] / RATE
        spans = [(DELAY * k, min(DELAY * (k + 1), length)) for k in range(len(scores))]
        positive = np.zeros(scores.shape, bool)
        for label, onset, offset in events[index]:
            over = np.array([min(e, offset) - max(s, onset) > 1e-6 for s, e in spans])
            positive[over, label] = True
            found = np.flatnonzero(over & (scores[:, label] >= 0.3))
            delays.append(spans[found[0]][1] - onset if len(found) else None)
        targets.append(positive)
    targets = np.concatenate(targets)
    scores = np.concatenate([expected_scores[index] for index in sorted(events)])
    some = targets.any(0)
    assert strong["segment_mAP"] == pytest.approx(
        sklearn.metrics.average_precision_score(targets[:, some], scores[:, some]), rel=1e-9
    )
    found = [delay for delay in delays if delay is not None]
    assert 0 < len(found) < len(delays)
    assert (strong["clips"], strong["events"]) == (4, 5)
    assert strong["events_detected"] == len(found)
    assert strong["onset_delay_median"] == pytest.approx(np.median(found))
    assert strong["PSDS1"] is None or 0.0 <= strong["PSDS1"] <= 1.0

    save_class_thresholds(run, None)
    thresholds = load_thresholds(folder, checkpoint)
    for label in np.flatnonzero(some):
        column, truth = scores[:, label], targets[:, label]
        best = max(sklearn.metrics.f1_score(truth, column >= each) for each in column)
        found = sklearn.metrics.f1_score(truth, column >= thresholds[label])
        assert found == pytest.approx(best), label


def test_predictions_without_length_are_left_out(model, tmp_path):
    """With seamless framing a last prediction may cover no further audio."""
    clips = make_clips(events={0: (Event(0, 0.0, 1.0),)})
    run = run_mode(model, tmp_path, Mode(delay=DELAY), clips)
    wanted = evaluate(run, threshold=0.0, rules={}, cost=None).to_dict()["strong"]
    index, num_samples, probs = run.scores[0]
    longer = ClipScores(index, num_samples, np.concatenate([probs, probs[-1:]]))
    run = dataclasses.replace(run, scores=run.scores | {0: longer})
    start, end = run.times(0)
    assert (end > start).tolist() == [True, True, False]
    assert evaluate(run, threshold=0.0, rules={}, cost=None).to_dict()["strong"] == wanted


def test_events_outside_of_their_clips_leave_the_other_metrics(model, tmp_path):
    events = {3: (Event(3, 1.5, 2.0),), 0: (Event(0, 7.25, 9.0), Event(1, 8.0, 9.0)), 4: ()}
    messages = []
    run = run_mode(model, tmp_path, Mode(delay=DELAY), make_clips(events=events))
    result = evaluate(run, threshold=0.3, rules={}, cost=None, report=messages.append)
    plain = run_mode(model, tmp_path, Mode(delay=DELAY))
    assert result.to_dict() | {"clips_per_second": 0} == evaluate(
        plain, threshold=0.3, rules={}, cost=None
    ).to_dict() | {"clips_per_second": 0}
    [message] = messages
    assert "clip0" in message and "7.25" in message


def test_cost_of_a_prediction(model, tmp_path):
    # 32 frames are two patches of time, each four of frequency; so is the cache.
    run = run_mode(model, tmp_path, Mode(delay=DELAY))
    stream, chunks, clip = (
        measure_cost(dataclasses.replace(run, mode=dataclasses.replace(run.mode, name=name)))
        for name in ("stream", "chunks", "clip")
    )
    assert (stream.is_streaming, stream.tokens) == (True, "8/8")
    assert (chunks.is_streaming, chunks.tokens) == (False, "8")
    assert stream.gflops > 0 and stream.peak_memory_mib > 0
    assert clip is None
