"""Runs: what is scored, reused and reported."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from sat_jax.errors import SatError
from sat_jax.evaluation.measure import evaluate
from sat_jax.evaluation.modes import Mode, make_modes
from sat_jax.evaluation.run import open_candidate, progress_line, score_candidate
from sat_jax.weights.checkpoint import save_checkpoint
from tests.support.labelled_clips import LABELS, LENGTHS, make_clips, run_mode

CHUNKS = Mode(name="chunks", delay=0.5)


def check_equal_scores(run, other):
    assert list(run.scores) == list(other.scores)
    for index, scores in run.scores.items():
        np.testing.assert_allclose(scores.probs, other.scores[index].probs, atol=1e-6)


@pytest.mark.parametrize("name", ["stream", "chunks", "sliding", "clip"])
def test_order_and_batch_size_change_no_metric(model, tmp_path, name):
    mode = Mode(name=name, delay=None if name == "clip" else 0.5, buffer=1.0)
    one = evaluate(run_mode(model, tmp_path, mode), threshold=0.5, rules={}, cost=None).to_dict()
    backwards = make_clips(order=range(len(LENGTHS) - 1, -1, -1))
    run = run_mode(model, tmp_path, mode, backwards, batch_size=7)
    other = evaluate(run, threshold=0.5, rules={}, cost=None).to_dict()
    for metric in ("mAP", "mAUC", "dprime", "lwlrap"):
        assert other[metric] == pytest.approx(one[metric], rel=1e-12), metric


def test_a_stopped_run_resumes(model, tmp_path):
    clips, read, messages = make_clips(), [], []

    def stop_at(limit):
        def some(indices):
            for count, (index, samples) in enumerate(clips.read(indices)):
                if count == limit:
                    raise KeyboardInterrupt
                read.append(index)
                yield index, samples

        return dataclasses.replace(clips, read=some)

    with pytest.raises(KeyboardInterrupt):
        run_mode(model, tmp_path, CHUNKS, stop_at(6), batch_size=1)
    resumed = run_mode(model, tmp_path, CHUNKS, stop_at(None), batch_size=1, report=messages.append)
    # Four clips were saved, two were read but not yet scored.
    assert sorted(read) == sorted([*range(len(LENGTHS)), 4, 5])
    [message] = messages
    assert "4 of 10" in message and str(tmp_path / "scores") in message
    check_equal_scores(resumed, run_mode(model, tmp_path / "fresh", CHUNKS))
    again = run_mode(model, tmp_path, CHUNKS, stop_at(0), batch_size=1)
    assert again.clips_per_second is None


def test_changed_recordings_are_scored_again(model, tmp_path):
    messages, read = [], []

    def run(order, versions):
        clips = make_clips(order=order, description={"same": 1}, versions=versions)

        def noting(indices):
            read.append(list(indices))
            return clips.read(indices)

        noted = dataclasses.replace(clips, read=noting)
        return run_mode(model, tmp_path, CHUNKS, noted, report=messages.append)

    order = list(range(len(LENGTHS)))
    run(order, np.zeros(10))
    # Clips 2 and 6 are other recordings of other lengths now.
    others = [0, 1, 8, 3, 4, 5, 3, 7, 8, 9]
    changed = run(others, [0, 0, 1, 0, 0, 0, 1, 0, 0, 0])
    assert read[1:] == [[2, 6]]
    assert "8 of 10" in messages[0] and "2 clips changed" in messages[1]
    check_equal_scores(changed, run_mode(model, tmp_path / "b", CHUNKS, make_clips(order=others)))


def test_scores_of_other_weights_are_not_reused(checkpoint, model, tmp_path):
    changed = jax.tree.map(lambda leaf: 1.1 * leaf, checkpoint.variables)
    save_checkpoint(tmp_path / "tiny", dataclasses.replace(checkpoint, variables=changed))
    one = run_mode(model, tmp_path, CHUNKS)
    other = run_mode(tmp_path / "tiny", tmp_path, CHUNKS)
    assert other.clips_per_second is not None
    assert np.abs(one.scores[0].probs - other.scores[0].probs).max() > 1e-4
    folders = list((tmp_path / "scores").iterdir())
    abouts = [json.loads((folder / "about.json").read_text()) for folder in folders]
    assert {about["model"] for about in abouts} == {str(model), str(tmp_path / "tiny")}
    assert {about["mode"]["delay"] for about in abouts} == {0.5}


def test_clips_that_cannot_be_read_are_left_out_and_tried_again(model, tmp_path):
    messages = []
    clips = make_clips(missing=(2, 5), description={"same": 1})
    run = run_mode(model, tmp_path, CHUNKS, clips, report=messages.append)
    assert [clip.clip for clip in run.missing] == ["clip2", "clip5"]
    assert [str(message) for message in messages] == ["clip 2 is gone", "clip 5 is gone"]
    kept = [index for index in range(len(LENGTHS)) if index not in (2, 5)]
    fewer = run_mode(model, tmp_path, CHUNKS, make_clips(order=kept))
    metrics = [
        evaluate(each, threshold=0.5, rules={}, cost=None).to_dict() for each in (run, fewer)
    ]
    for name in ("mAP", "mAUC", "lwlrap"):
        assert metrics[0][name] == pytest.approx(metrics[1][name], rel=1e-12)
    complete = run_mode(model, tmp_path, CHUNKS, make_clips(description={"same": 1}))
    assert len(complete.scores) == len(LENGTHS)


def test_no_clip_can_be_read(model, tmp_path):
    with pytest.raises(SatError, match="10 clips"):
        run_mode(model, tmp_path, CHUNKS, make_clips(missing=range(10)))


def test_damaged_weights(checkpoint, tmp_path):
    broken = jax.tree.map(lambda leaf: np.full_like(leaf, np.nan), checkpoint.variables)
    save_checkpoint(tmp_path / "broken", dataclasses.replace(checkpoint, variables=broken))
    with pytest.raises(SatError, match=r"broken, stream, 0\.5 s"):
        run_mode(tmp_path / "broken", tmp_path, Mode(delay=0.5))


@pytest.mark.parametrize("label", [-1, len(LABELS)])
def test_labels_of_another_model(model, label):
    clips = dataclasses.replace(make_clips(), labels=[[label]] * len(LENGTHS))
    with pytest.raises(SatError, match=f"label {label} "):
        open_candidate(str(model), [Mode()], lambda tagger: clips)


def test_problems_are_found_before_a_clip_is_read(model):
    def read(indices):
        raise AssertionError(indices)

    clips = dataclasses.replace(make_clips(), read=read)
    unlabelled = dataclasses.replace(clips, labels=[[]] * len(LENGTHS))
    with pytest.raises(SatError, match="10 clips"):
        open_candidate(str(model), [Mode()], lambda tagger: unlabelled)
    modes = [Mode(), Mode(name="sliding", buffer=0.2)]  # The model's chunk is longer.
    with pytest.raises(SatError, match=r"0\.2 s"):
        open_candidate(str(model), modes, lambda tagger: clips)


def test_modes_that_are_equal_for_a_model_run_once(model, tmp_path):
    modes = make_modes(["stream"], [None, 1 / 3])  # The model's chunk is 1/3 s long.
    candidate = open_candidate(str(model), modes, lambda tagger: make_clips())
    runs = score_candidate(candidate, folder=tmp_path, batch_size=4, report=print)
    assert len(runs) == 1


@pytest.mark.parametrize(
    ("done", "rate", "expected"),
    [
        (3, 0.0277, ("3 of 20", "0.0277", "10 min")),
        (3, 0.001, ("3 of 20", "0.001", "4.7 h")),
        (18, 0.1, ("18 of 20", "0.1", "20 s")),
        (20, 99.0, ("20 of 20", "99", "0 s")),
    ],
)
def test_progress(done, rate, expected):
    line = progress_line(done, 20, rate)
    for part in expected:
        assert part in line
