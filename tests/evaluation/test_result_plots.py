"""Plots of evaluations: which clip and classes are drawn."""

import numpy as np
import pytest

from sat_jax.errors import SatError
from sat_jax.evaluation import result_plots
from sat_jax.evaluation.measure import evaluate
from sat_jax.evaluation.modes import Mode
from sat_jax.labels import Event
from tests.support.labelled_clips import LENGTHS, make_clips, run_mode


@pytest.fixture(scope="module")
def run(model, tmp_path_factory):
    events = {0: (Event(4, 0.5, 0.9), Event(3, 0.0, 0.4))}
    clips = make_clips(events=events, missing=[2])
    return run_mode(model, tmp_path_factory.mktemp("plots"), Mode(name="clip"), clips)


def test_classes_with_events_come_first(run, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(result_plots, "plot_clip_scores", lambda path, **what: drawn.append(what))
    for name in ("plot_class_ap", "plot_map_by_delay"):
        monkeypatch.setattr(result_plots, name, lambda *args, **options: None)
    result = evaluate(run, threshold=0.5, rules={}, cost=None)
    result_plots.plot_evaluations(tmp_path, [run], [result], clip="clip0")
    # Its weak labels are 0, 2 and 5.
    assert drawn[0]["classes"] == [3, 4, 0, 2, 5, 1]


def test_the_longest_clip_is_chosen(run):
    assert result_plots.find_clip(run, None) == int(np.argmax(LENGTHS))
    assert result_plots.find_clip(run, "clip3") == 3


@pytest.mark.parametrize("name", ["clip2", "clip99"])
def test_clips_that_cannot_be_drawn(run, name):
    with pytest.raises(SatError, match=name):
        result_plots.find_clip(run, name)
