"""Pictures of evaluations: every number drawn where it belongs, and all of it readable."""

import itertools
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.image import imread
from matplotlib.text import Text

from sat_jax.errors import SatError
from sat_jax.labels import Event, default_label_names
from sat_jax.plots import class_ap as plot_classes
from sat_jax.plots import clip_scores as plot_clip
from sat_jax.plots import map_by_delay as plot_delays
from sat_jax.plots.class_ap import plot_class_ap
from sat_jax.plots.clip_scores import Track, plot_clip_scores
from sat_jax.plots.map_by_delay import Curve, Level, plot_map_by_delay
from sat_jax.plots.spectrogram import SpectrogramPool

DELAYS = [0.16, 0.5, 1.0, 2.0, 5.0]
LABELS = default_label_names(527)
ODD = "día 日本 $x_1$ \udcff\n_" * 9


def make_ways(num_models, num_modes, name="SAT_{}"):
    rng = np.random.default_rng(0)
    models, modes = [name.format(i) for i in range(num_models)], range(num_modes)
    curves = [
        Curve(model, f"mode {mode}", DELAYS, list(rng.uniform(0.3, 0.5, len(DELAYS))))
        for model in models
        for mode in modes
    ]
    return curves, [Level(model, "clip", rng.uniform(0.3, 0.5)) for model in models]


def make_classes(count, seed=0):
    rng = np.random.default_rng(seed)
    positives = rng.integers(0, 4, count) * rng.integers(1, 9_999, count)
    precision = np.where(positives > 0, rng.random(count), np.nan)
    return {"average_precision": precision, "positives": positives}


def make_pool(seconds):
    pool = SpectrogramPool(0.01)
    frames = np.random.default_rng(0).random((64, 1 + round(100 * seconds)), np.float32)
    pool.add(120 * frames - 100)
    return pool


def make_track(label, step, seconds=10.0, num_classes=527):
    start = np.arange(0.0, seconds - step + 1e-9, step)
    probs = np.random.default_rng(len(label)).random((len(start), num_classes))
    return Track(label, start, start + step, probs.astype(np.float32))


@pytest.fixture
def figure(monkeypatch):
    """Draws without saving and hands out the figure."""

    def draw(plot, *arguments, **options):
        saved = []
        for module in (plot_classes, plot_clip, plot_delays):
            monkeypatch.setattr(module, "save_figure", lambda figure, path: saved.append(figure))
        plot("a.png", *arguments, **options)
        (figure,) = saved
        figure.draw_without_rendering()
        return figure

    return draw


def texts_of(items):
    return [item.get_text().strip() for item in items]


# --- mAP against delay


def test_curves_and_levels_stand_where_their_numbers_are(figure):
    curves = [
        Curve("T", "stream", [2.0, 0.16, 1.0, 0.5], [0.43, 0.39, None, 0.41]),
        Curve("T", "chunks", [0.5, 2.0, 0.16], [0.30, float("nan"), 0.20]),
        Curve("T", "sliding", [1.0], [0.44]),
        Curve("T", "never", [1.0], [None]),
    ]
    drawn = figure(plot_map_by_delay, curves, [Level("T", "clip", 0.45), Level("B", "clip", None)])
    (axes,) = drawn.axes
    lines = {line.get_label(): line for line in axes.lines}
    assert set(lines) == {"T, stream", "T, chunks", "T, sliding", "T, clip: 45.00 %"}
    np.testing.assert_allclose(lines["T, stream"].get_xydata(), [[0.16, 39], [0.5, 41], [2, 43]])
    np.testing.assert_allclose(lines["T, chunks"].get_xydata(), [[0.16, 20], [0.5, 30]])
    np.testing.assert_allclose(lines["T, sliding"].get_xydata(), [[1, 44]])
    np.testing.assert_allclose(lines["T, clip: 45.00 %"].get_xydata(), [[0, 45], [1, 45]])
    assert lines["T, sliding"].get_linestyle() == "None" != lines["T, chunks"].get_linestyle()
    assert axes.get_xscale() == "log"
    np.testing.assert_allclose(axes.get_xticks(), [0.16, 0.5, 1.0, 2.0])
    assert texts_of(axes.get_xticklabels()) == ["0.16", "0.5", "1", "2"]
    (legend,) = drawn.legends
    assert texts_of(legend.get_texts()) == [
        "T, clip: 45.00 %",
        "T, sliding",
        "T, stream",
        "T, chunks",
    ]


def test_what_a_curve_is_the_mean_of_is_a_bar_beside_those_of_others(figure):
    ranges = {
        "stream": ([2.0, 1.0], [0.4, 0.3], [(0.39, 0.42), (0.25, 0.31)]),
        "chunks": ([1.0], [0.2], [(0.1, 0.3)]),
    }
    curves = [Curve("T", mode, *values) for mode, values in ranges.items()]
    curves.insert(1, Curve("T", "sliding", [1.0, 2.0], [0.44, 0.45]))
    (axes,) = figure(plot_map_by_delay, curves).axes
    lines = {line.get_label(): line.get_xydata() for line in axes.lines}
    np.testing.assert_array_equal(lines["T, sliding"][:, 0], [1.0, 2.0])
    stream, chunks = ([path.vertices for path in bars.get_paths()] for bars in axes.collections)
    assert 0.95 < stream[0][0, 0] < 0.995 < 1.005 < chunks[0][0, 0] < 1.05
    for bars, mode, spans in (
        (stream, "stream", [(25, 31), (39, 42)]),
        (chunks, "chunks", [(10, 30)]),
    ):
        for bar, point, span in zip(bars, lines[f"T, {mode}"], spans, strict=True):
            np.testing.assert_allclose(bar, [[point[0], span[0]], [point[0], span[1]]])


@pytest.mark.parametrize(("num_models", "num_modes"), [(3, 3), (1, 8), (9, 1), (2, 4), (6, 5)])
def test_lines_are_told_apart_without_colour(figure, num_models, num_modes):
    lines = figure(plot_map_by_delay, *make_ways(num_models, num_modes)).axes[0].lines
    looks = {
        (line.get_marker(), str(line._dash_pattern), line.get_markerfacecolor() == "white")
        for line in lines
    }
    assert len(looks) == len(lines) == num_models * (num_modes + 1)
    colors = {to_hex(line.get_color()) for line in lines}
    assert len(colors) >= max(num_models, num_modes)


def test_only_levels(figure):
    (axes,) = figure(plot_map_by_delay, [], [Level("T", "clip", 0.4)]).axes
    assert axes.get_ylim()[0] < 40 < axes.get_ylim()[1]
    assert not axes.get_xticks().size


# --- class by class


def bars_of(axes):
    names, clips = axes.get_yticklabels(), axes.child_axes[0].get_yticklabels()
    return list(
        zip(texts_of(names), [b.get_width() for b in axes.patches], texts_of(clips), strict=True)
    )


@pytest.mark.parametrize("count", [1, 7, 45])
def test_few_classes_are_sorted_bars_with_their_clips(figure, count):
    classes = make_classes(count, seed=3)
    measured = [i for i in range(count) if classes["positives"][i]]
    assert 0 < len(measured) <= 40
    (axes,) = figure(
        plot_class_ap, title="T", labels=[f"c{i}" for i in range(count)], **classes
    ).axes
    precision = classes["average_precision"]
    expected = sorted(measured, key=lambda i: -precision[i])
    bars = bars_of(axes)
    assert [name for name, _, _ in bars] == [f"c{i}" for i in expected]
    np.testing.assert_allclose([width for _, width, _ in bars], 100 * precision[expected])
    assert [int(clips) for _, _, clips in bars] == classes["positives"][expected].tolist()
    assert axes.get_ylim() == (len(expected) - 0.5, -0.5)  # The first is on top.
    np.testing.assert_allclose(axes.lines[0].get_xdata(), 100 * np.nanmean(precision))
    missing = count - len(measured)
    assert ("in no clip" in axes.get_title("left")) == bool(missing)


def test_many_classes_are_a_curve_over_both_ends(figure):
    classes = make_classes(527)
    curve, best, worst = figure(plot_class_ap, title="T", labels=LABELS, **classes).axes
    precision = 100 * classes["average_precision"]
    ranked = sorted(
        ((p, name) for p, name in zip(precision, LABELS, strict=True) if not np.isnan(p)),
        reverse=True,
    )
    assert 350 < len(ranked) < 450
    line, mean = curve.lines
    np.testing.assert_array_equal(line.get_xdata(), np.arange(1, len(ranked) + 1))
    np.testing.assert_allclose(line.get_ydata(), [p for p, _ in ranked])
    np.testing.assert_allclose(mean.get_ydata(), np.nanmean(precision))
    for axes, expected in ((best, ranked[:20]), (worst, ranked[-20:])):
        assert [name for name, _, _ in bars_of(axes)] == [name for _, name in expected]
        np.testing.assert_allclose([b[1] for b in bars_of(axes)], [p for p, _ in expected])
    positives = dict(zip(LABELS, classes["positives"].tolist(), strict=True))
    assert all(int(clips) == positives[name] for name, _, clips in bars_of(worst))


# --- one clip


def value_at(line, time):
    """What a line shows at a time that is no end of an answer; None where it is interrupted."""
    points = line.get_xydata()
    for (left, low), (right, high) in itertools.pairwise(points):
        if left <= time < right and not np.isnan([low, high]).any():
            assert low == high  # Level while time passes.
            return low
    return None


def test_lines_are_level_over_each_answer(figure):
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
                heard = np.flatnonzero((track.start < time) & (time < track.end))
                expected = track.probs[heard[0], index] if heard.size else None
                assert value_at(line, time) == expected
    (legend,) = drawn.legends
    assert texts_of(legend.get_texts()) == ["a", "late", "whole"]


def test_events_are_shaded_in_their_own_panel(figure):
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
def test_axes_end_where_weak_scores_can_be_read(figure, highest, end):
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


def test_what_had_no_answer_is_shown_too(figure):
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


# --- all of them


def crowded():
    """Calls whose pictures are as full as they get."""
    name = "a_long_name_of_a_checkpoint_that_nobody_shortened_{}"
    pool = make_pool(10.0)
    tracks = [make_track(name.format(i) + ", stream, 2 s", DELAYS[i % 5]) for i in range(9)]
    longest = sorted(range(527), key=lambda i: -len(LABELS[i]))
    few = {"average_precision": np.linspace(0, 1, 40), "positives": np.full(40, 20_000)}
    perfect = {"average_precision": np.ones(527), "positives": np.full(527, 20_000)}
    clip = {"title": ODD, "spectrogram": pool, "labels": LABELS}
    curves, levels = make_ways(3, 3, name)
    near = [Curve(ODD, "", [0.16, 0.5, 0.96, 1.0, 1.02, 1.92, 2.0], np.linspace(0, 1, 7))]
    return {
        "map": (plot_map_by_delay, (curves, levels), {}),
        "nine": (plot_map_by_delay, make_ways(9, 1, name), {}),
        "near": (plot_map_by_delay, (near,), {}),
        "many": (plot_class_ap, (), {"title": ODD, "labels": LABELS, **make_classes(527)}),
        "perfect": (
            plot_class_ap,
            (),
            {"title": ODD, "labels": LABELS, **perfect},
        ),
        "few": (
            plot_class_ap,
            (),
            {"title": ODD, "labels": [LABELS[i] for i in longest[:40]], **few},
        ),
        "one": (plot_class_ap, (), {"title": ODD, "labels": [ODD], **make_classes(1, seed=3)}),
        "clip": (plot_clip_scores, (), {**clip, "tracks": tracks, "classes": longest[:8]}),
        "small": (plot_clip_scores, (), {**clip, "tracks": tracks[:1], "classes": [0]}),
    }


@pytest.mark.filterwarnings("ignore:Glyph .* missing from font")
@pytest.mark.parametrize("name", crowded())
def test_no_text_overlaps_or_leaves_the_picture(figure, name, monkeypatch):
    plot, arguments, options = crowded()[name]
    drawn = figure(plot, *arguments, **options)
    texts = []
    draw = Text.draw
    monkeypatch.setattr(Text, "draw", lambda self, *args: (texts.append(self), draw(self, *args)))
    drawn.draw_without_rendering()
    shown = [text for text in texts if text.get_text() and text.get_visible()]
    boxes = {text: text.get_window_extent() for text in shown}
    assert len(boxes) > 8
    for text, other in itertools.combinations(boxes, 2):
        assert not boxes[text].overlaps(boxes[other]), (text, other)
    for text, box in boxes.items():
        assert drawn.bbox.contains(*box.min), text
        assert drawn.bbox.contains(*box.max), text
    for legend, axes in itertools.product(drawn.legends, drawn.axes):
        assert not legend.get_window_extent().overlaps(axes.get_window_extent())


@pytest.mark.parametrize("name", ["near", "one", "small"])
def test_files_appear_whole(tmp_path, name):
    plot, arguments, options = crowded()[name]
    path = tmp_path / "día.png"
    path.write_bytes(b"old")
    plot(path, *arguments, **options)
    height, width, _ = imread(path).shape
    assert width >= 1300
    assert height > 200
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("name", ["near", "one", "small"])
def test_a_folder_that_is_not_there_or_another_kind_of_picture(tmp_path, name):
    plot, arguments, options = crowded()[name]
    for path in (tmp_path / "no" / "a.png", tmp_path / "a.bmp"):
        with pytest.raises(SatError, match=re.escape(str(path))):
            plot(path, *arguments, **options)


def test_nothing_to_draw(tmp_path):
    path, pool, track = tmp_path / "a.png", make_pool(1.0), make_track("a", 0.5, seconds=1.0)
    unheard = make_track("a", 2.0, seconds=1.0)
    no_positives = {"average_precision": np.full(2, np.nan), "positives": np.zeros(2, int)}
    for curves, levels in (([], []), ([Curve("T", "", [1.0], [None])], [Level("T", "", None)])):
        with pytest.raises(SatError, match=re.escape(str(path))):
            plot_map_by_delay(path, curves, levels)
    with pytest.raises(SatError, match=re.escape(str(path))):
        plot_class_ap(path, title="T", labels=["a", "b"], **no_positives)
    for tracks, classes, spectrogram in (
        ([], [0], pool),
        ([unheard], [0], pool),
        ([track], [], pool),
        ([track], [0], SpectrogramPool(0.01)),
    ):
        with pytest.raises(SatError, match=re.escape(str(path))):
            plot_clip_scores(
                path,
                title="T",
                spectrogram=spectrogram,
                tracks=tracks,
                labels=LABELS,
                classes=classes,
            )
    assert not any(tmp_path.iterdir())


def test_matplotlib_is_imported_late_and_pyplot_never(tmp_path):
    code = """
import sys
from sat_jax.plots.class_ap import plot_class_ap
from sat_jax.plots.clip_scores import plot_clip_scores
from sat_jax.plots.map_by_delay import Level, plot_map_by_delay
assert "matplotlib" not in sys.modules
plot_map_by_delay(sys.argv[1], [], [Level("T", "clip", 0.4)])
assert "matplotlib.pyplot" not in sys.modules
"""
    command = [sys.executable, "-W", "error", "-c", code, str(tmp_path / "a.png")]
    subprocess.run(command, cwd=Path(__file__).parents[2], check=True)
    assert (tmp_path / "a.png").exists()
