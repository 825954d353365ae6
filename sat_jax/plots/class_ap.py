"""A picture of average precision by class."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sat_jax.errors import SatError
from sat_jax.plots.figures import (
    BLUE,
    RED,
    check_plot,
    name_style,
    new_figure,
    printable,
    save_figure,
    wrap,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def plot_class_ap(
    path: str | Path,
    *,
    title: str,
    labels: Sequence[str],
    average_precision: np.ndarray,
    positives: np.ndarray,
) -> None:
    """Draws average precision by class.

    Up to 40 classes are drawn as bars, best first. With more, a curve of all classes stands above
    bars of the 20 best and the 20 worst. Classes without positives are left out.

    Args:
      path: the picture, of a type in `figures.SUFFIXES`; an existing file is replaced.
      title: usually the model and the evaluation mode.
      labels: [y] display names.
      average_precision: [y] in [0, 1]; NaN for classes without positives.
      positives: int [y], the number of clips with each class.

    Raises:
      SatError: there is nothing to draw, matplotlib is missing, or the file cannot be written.
    """
    check_plot(path)
    percent = 100.0 * np.asarray(average_precision, np.float64)
    bars = [
        _Bar(labels[index], float(percent[index]), int(positives[index]))
        for index in np.flatnonzero(np.isfinite(percent)).tolist()
    ]
    if not bars:
        raise SatError(f"cannot draw {path}: no class is in any clip; give clips of its classes")
    bars.sort(key=lambda bar: -bar.percent)
    missing = len(labels) - len(bars)
    counted = f"Classes: {len(bars)}" + (f" (and {missing} in no clip)" if missing else "")
    draw = _draw_few if len(bars) <= _MAX_BARS else _draw_many
    figure = draw(bars, counted)
    figure.suptitle(printable(title), x=0.01, ha="left", fontweight="bold", **name_style(11))
    save_figure(figure, path)


_MAX_BARS = 40
"""Up to this many classes are all drawn as bars."""

_NUM_EXTREMES = 20
"""With more classes, bars of this many from either end."""

_MEASURE = "Average precision (%)"


class _Bar(NamedTuple):
    name: str
    percent: float
    positives: int


def _draw_few(bars: Sequence[_Bar], counted: str) -> "Figure":
    figure = new_figure(10.0, 1.5 + 0.23 * len(bars))
    axes = figure.subplots()
    _draw_bars(axes, bars, BLUE, f"{counted}, mean {_mean(bars):.1f}")
    axes.axvline(_mean(bars), color="black", linewidth=1.0, zorder=0)
    return figure


def _draw_many(bars: Sequence[_Bar], counted: str) -> "Figure":
    figure = new_figure(13.0, 9.0)
    grid = figure.add_gridspec(2, 2, height_ratios=[3, 5])
    curve = figure.add_subplot(grid[0, :])
    ranks = np.arange(1, len(bars) + 1)
    heights = [bar.percent for bar in bars]
    curve.fill_between(ranks, heights, color=BLUE, alpha=0.15, linewidth=0)
    curve.plot(ranks, heights, color=BLUE)
    curve.axhline(_mean(bars), color="black", linestyle="--", linewidth=1.2)
    # At the right end the curve is below the mean.
    curve.annotate(
        f"Mean {_mean(bars):.1f}",
        (len(bars), _mean(bars)),
        xytext=(-5, 3),
        textcoords="offset points",
        ha="right",
    )
    curve.set_xlim(1, len(bars))
    curve.set_ylim(0, 105)
    curve.set_ylabel(_MEASURE)
    curve.set_title(f"{counted}, from the best to the worst", loc="left", fontsize=10)
    best, worst = (figure.add_subplot(grid[1, column]) for column in (0, 1))
    _draw_bars(best, bars[:_NUM_EXTREMES], BLUE, f"The {_NUM_EXTREMES} best")
    _draw_bars(worst, bars[-_NUM_EXTREMES:], RED, f"The {_NUM_EXTREMES} worst")
    return figure


def _mean(bars: Sequence[_Bar]) -> float:
    return float(np.mean([bar.percent for bar in bars]))


def _draw_bars(axes: "Axes", bars: Sequence[_Bar], color: str, title: str) -> None:
    places = np.arange(len(bars))
    drawn = axes.barh(places, [bar.percent for bar in bars], height=0.7, color=color)
    paper = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}
    axes.bar_label(drawn, fmt="%.1f", padding=3, fontsize=8, bbox=paper)
    axes.set_title(title, loc="left", fontsize=10)
    axes.set_xlabel(_MEASURE)
    names = [wrap(bar.name, 42, max_lines=1) for bar in bars]
    axes.set_yticks(places, names, **name_style(8.5))
    axes.set_ylim(len(bars) - 0.5, -0.5)
    # Leaves room for "100.0" to the right of a full bar.
    axes.set_xlim(0, 118)
    axes.set_xticks(range(0, 101, 20))
    counts = axes.secondary_yaxis("right")
    counts.set_yticks(places, _aligned([bar.positives for bar in bars]), fontsize=8.5)
    axes.annotate(
        "Clips", (1, 1), (2, 6), "axes fraction", textcoords="offset points", fontsize=8.5
    )
    for side in (axes, counts):
        side.tick_params(axis="y", length=0)
        side.spines[["right"]].set_visible(False)
    axes.spines[["top"]].set_visible(False)


def _aligned(counts: Sequence[int]) -> list[str]:
    """Pads numbers to equal width with a space as wide as a digit."""
    texts = [str(count) for count in counts]
    return [text.rjust(max(map(len, texts)), "\u2007") for text in texts]
