import numpy as np
import pytest
from matplotlib.colors import to_hex

from sat_jax.plots.map_by_delay import Curve, Level, plot_map_by_delay
from tests.support.pictures import (
    make_curves,
    texts_of,
)


def test_curves_and_levels_show_their_numbers(figure):
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


def test_ranges_are_bars_side_by_side(figure):
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
def test_lines_differ_without_colour(figure, num_models, num_modes):
    lines = figure(plot_map_by_delay, *make_curves(num_models, num_modes)).axes[0].lines
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
