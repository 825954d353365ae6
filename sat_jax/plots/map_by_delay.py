"""A picture of mAP against delay."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sat_jax.errors import SatError
from sat_jax.plots.figures import (
    COLORS,
    MARKERS,
    check_plot,
    draw_legend,
    draw_title,
    new_figure,
    save_figure,
    wrap,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D


class Curve(NamedTuple):
    """mAP of a model in one mode at one or more delays.

    Attributes:
      model: the model's name.
      mode: the second part of the curve's name, such as "stream"; may be empty.
      delays: [n] seconds, above 0, in any order.
      mean_average_precision: [n] in [0, 1]; NaN or None where unknown.
      ranges: [n] lowest and highest value of several runs, if mAP is their mean; else empty.
    """

    model: str
    mode: str
    delays: Sequence[float]
    mean_average_precision: Sequence[float | None]
    ranges: Sequence[tuple[float, float]] = ()


class Level(NamedTuple):
    """mAP of a model in a mode without a delay, which waits for the clip's end.

    Attributes:
      model: the model's name.
      mode: the second part of the level's name, such as "clip"; may be empty.
      mean_average_precision: in [0, 1]; NaN or None if unknown.
    """

    model: str
    mode: str
    mean_average_precision: float | None


def plot_map_by_delay(
    path: str | Path, curves: Sequence[Curve], levels: Sequence[Level] = ()
) -> None:
    """Draws mAP in percent against the delay.

    A curve is a line with a marker per delay. If it has ranges, they are vertical bars, and the
    curve is shifted a little sideways so that bars do not hide each other. A level is a dashed line
    with its value in the legend. Colour and marker stand for the model and the line style for the
    mode, or the reverse if there are more modes than models.

    Args:
      path: the picture, of a type in `figures.SUFFIXES`; an existing file is replaced.
      curves: mAP of modes with delays.
      levels: mAP of modes without.

    Raises:
      SatError: there is nothing to draw, matplotlib is missing, or the file cannot be written.
    """
    check_plot(path)
    curves = [_measured(curve) for curve in curves]
    styles = _styles([*curves, *levels])
    figure = new_figure(11.0, 5.6)
    axes = figure.subplots()
    lines = [
        _draw_curve(axes, curve, style, shift)
        for curve, style, shift in zip(curves, styles, _shifts(curves), strict=False)
        if len(curve.delays)
    ]
    lines += [
        _draw_level(axes, level, style)
        for level, style in zip(levels, styles[len(curves) :], strict=True)
        if np.isfinite(_percent(level.mean_average_precision))
    ]
    if not lines:
        raise SatError(f"cannot draw {path}: there is no mAP; give clips of the model's classes")
    draw_title(axes, "mAP against delay")
    axes.set_ylabel("mAP (%)")
    axes.grid(axis="y", color="0.9")
    axes.spines[["top", "right"]].set_visible(False)
    _set_delay_axis(axes, [delay for curve in curves for delay in curve.delays])
    # Makes room for a legend of many long names.
    figure.set_figheight(max(5.6, 0.5 + sum(0.12 + 0.16 * _num_rows(line) for line in lines)))
    # The legend lists lines in their order at the right edge.
    lines.sort(key=lambda line: -float(np.asarray(line.get_ydata())[-1]))
    draw_legend(figure, lines, loc="outside right upper", labelspacing=0.8, handlelength=4.5)
    save_figure(figure, path)


_PATTERNS = ("solid", (0, (1, 1.3)), (0, (7, 2, 1.5, 2)))
"""Line styles of curves. Hollow markers on every other curve make six looks of three styles."""

_APART = 1.02
"""Factor between the x positions of neighbouring curves with ranges."""

_DASHES = ((0, (6, 3)), (0, (3, 2)), (0, (10, 3)))
"""Line styles of levels."""


class _Style(NamedTuple):
    color: str
    marker: str
    pattern: int


def _percent(shares: object) -> np.ndarray:
    return 100.0 * np.asarray(shares, np.float64)


def _measured(curve: Curve) -> Curve:
    """Drops unknown points and sorts the others by delay."""
    ranges: Sequence[tuple[float, float] | None] = curve.ranges or [None] * len(curve.delays)
    points = zip(curve.delays, curve.mean_average_precision, ranges, strict=True)
    kept = sorted(
        (point for point in points if np.isfinite(_percent(point[1]))), key=lambda point: point[0]
    )
    return curve._replace(
        delays=[delay for delay, _, _ in kept],
        mean_average_precision=[share for _, share, _ in kept],
        ranges=[span for _, _, span in kept if span is not None],
    )


def _styles(entries: Sequence[Curve | Level]) -> list[_Style]:
    models, modes = (list(dict.fromkeys(entry[field] for entry in entries)) for field in (0, 1))
    places = [(models.index(entry.model), modes.index(entry.mode)) for entry in entries]
    # Levels do not count: they are dashed in every mode.
    if len({entry.mode for entry in entries if isinstance(entry, Curve)}) > len(models):
        places = [(mode, model) for model, mode in places]
    return [
        _Style(COLORS[place % len(COLORS)], MARKERS[place % len(MARKERS)], pattern)
        for place, pattern in places
    ]


def _name(entry: Curve | Level) -> str:
    return wrap(", ".join(filter(None, (entry.model, entry.mode))), 32, max_lines=3)


def _num_rows(line: "Line2D") -> int:
    return 1 + str(line.get_label()).count("\n")


def _shifts(curves: Sequence[Curve]) -> list[float]:
    """Returns a factor for each curve's delays that puts ranges side by side."""
    ranged = [place for place, curve in enumerate(curves) if curve.ranges]
    middle = (len(ranged) - 1) / 2
    return [
        _APART ** (ranged.index(place) - middle) if place in ranged else 1.0
        for place in range(len(curves))
    ]


def _draw_curve(axes: "Axes", curve: Curve, style: _Style, shift: float) -> "Line2D":
    delays = shift * np.asarray(curve.delays, np.float64)
    (line,) = axes.plot(
        delays,
        _percent(curve.mean_average_precision),
        color=style.color,
        linestyle=_PATTERNS[style.pattern % len(_PATTERNS)] if len(curve.delays) > 1 else "none",
        linewidth=1.8,
        marker=style.marker,
        markersize=7,
        markerfacecolor="white" if style.pattern % 2 else style.color,
        label=_name(curve),
    )
    if curve.ranges:
        low, high = _percent(curve.ranges).T
        axes.vlines(delays, low, high, color=style.color, linewidth=1.2)
    return line


def _draw_level(axes: "Axes", level: Level, style: _Style) -> "Line2D":
    percent = float(_percent(level.mean_average_precision))
    return axes.axhline(
        percent,
        color=style.color,
        linestyle=_DASHES[style.pattern % len(_DASHES)],
        linewidth=1.3,
        marker=style.marker,
        markersize=6,
        markerfacecolor="white",
        markevery=[1],
        clip_on=False,
        label=f"{_name(level)}: {percent:.2f} %",
    )


def _set_delay_axis(axes: "Axes", delays: Sequence[float]) -> None:
    """Makes the x axis logarithmic, with a tick per delay and a number where there is room."""
    ticks = np.unique(delays)
    axes.set_xlabel("Delay (s)")
    if not ticks.size:
        axes.set_xticks([])
        return
    axes.set_xscale("log")
    axes.minorticks_off()
    low, high = ticks[0] / 1.25, ticks[-1] * 1.25
    axes.set_xlim(low, high)
    texts, last = [], 0.0
    for tick in ticks:
        has_room = tick > last * (high / low) ** 0.065
        texts.append(f"{tick:.3g}" if has_room else "")
        last = tick if has_room else last
    axes.set_xticks(ticks, texts)
