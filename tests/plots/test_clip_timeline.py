import itertools

import numpy as np
import pytest

from sat_jax.labels import Event
from sat_jax.plots.clip_timeline import Track, plot_clip_scores
from tests.support.pictures import (
    LABELS,
    make_pool,
    make_track,
    texts_of,
)


def value_at(line, time):
    """Returns a line's value inside a chunk; None where the line is interrupted."""
    points = line.get_xydata()
    for (left, low), (right, high) in itertools.pairwise(points):
        if left <= time < right and not np.isnan([low, high]).any():
            assert low == high  # The line is constant.
            return low
    return None


def test_lines_are_constant_over_each_chunk(figure):
    late = Track(
        "late",
        np.array([2.0, 4.0, 7.0]),
        np.array([4.0, 6.0, 9.0]),
        np.arange(12.0).reshape(3, 4) / 12,
    )
    tracks = [make_track("a", 0.16, num_classes=4), late, make_track("whole", 10.0, num_classes=4)]
    drawn = figure(
        plot_clip_scores,
        title="clip",
        spectrogram=make_pool(10.0),
        tracks=tracks,
        labels=["a", "b", "c", "d"],
        classes=[3, 1],
    )
    upper, _, *panels = drawn.axes
    assert [panel.get_ylabel() for panel in panels] == ["d", "b"]
    for panel, index in zip(panels, (3, 1), strict=True):
        assert panel.get_xlim() == upper.get_xlim() == (0.0, 10.0)
        assert panel.get_ylim()[0] < 0 < 1 < panel.get_ylim()[1]
        for line, track in zip(panel.lines, tracks, strict=True):
            for time in np.random.default_rng(0).uniform(0, 10, 60):
                covering = np.flatnonzero((track.start < time) & (time < track.end))
                expected = track.probs[covering[0], index] if covering.size else None
                assert value_at(line, time) == expected
    (legend,) = drawn.legends
    assert texts_of(legend.get_texts()) == ["a", "late", "whole"]


def test_events_are_shaded_in_their_class_s_panel(figure):
    drawn = figure(
        plot_clip_scores,
        title="clip",
        spectrogram=make_pool(10.0),
        tracks=[make_track("a", 2.0, num_classes=4)],
        labels=["a", "b", "c", "d"],
        classes=[3, 1, 0],
        events=[Event(1, 0.5, 2.5), Event(2, 0.0, 1.0), Event(0, 3.0, 4.0), Event(1, 8.0, 9.5)],
    )
    spans = [[(s.get_x(), s.get_x() + s.get_width()) for s in a.patches] for a in drawn.axes[2:]]
    assert spans == [[], [(0.5, 2.5), (8.0, 9.5)], [(3.0, 4.0)]]
    assert all(
        span.get_zorder() < line.get_zorder()
        for axes in drawn.axes[2:]
        for span, line in itertools.product(axes.patches, axes.lines)
    )
    assert texts_of(drawn.legends[0].get_texts()) == ["a", "Labelled"]


@pytest.mark.parametrize(
    ("highest", "end"), [(0.0, 0.1), (0.03, 0.1), (0.11, 0.2), (0.2, 0.2), (0.3, 0.5), (0.6, 1.0)]
)
def test_axes_end_just_above_the_highest_score(figure, highest, end):
    track = make_track("a", 2.0, num_classes=2)
    probs = np.stack([np.linspace(0, highest, len(track.start)), track.probs[:, 1]], axis=1)
    drawn = figure(
        plot_clip_scores,
        title="clip",
        spectrogram=make_pool(10.0),
        tracks=[track._replace(probs=probs / 2), track._replace(label="b", probs=probs)],
        labels=["a", "b"],
        classes=[0],
    )
    axes = drawn.axes[2]
    assert end < axes.get_ylim()[1] < 1.1 * end
    assert texts_of(axes.get_yticklabels()) == ["0", "", f"{end:g}"]
    assert axes.get_yticks()[-1] == end


def test_a_last_part_without_scores_is_shown(figure):
    drawn = figure(
        plot_clip_scores,
        title="clip",
        spectrogram=make_pool(9.0),
        tracks=[make_track("a", 5.0, seconds=5.0), make_track("none", 10.0, seconds=9.0)],
        labels=LABELS,
        classes=[0],
    )
    assert drawn.axes[0].get_xlim() == pytest.approx((0.0, 9.0))
    assert len(drawn.axes[2].lines) == 1
