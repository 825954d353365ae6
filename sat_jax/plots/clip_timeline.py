"""A picture of one clip: its spectrogram above the scores of several models over time."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sat_jax.errors import SatError
from sat_jax.labels import Event
from sat_jax.plots.figures import (
    COLORS,
    MARKERS,
    check_plot,
    draw_legend,
    draw_title,
    name_style,
    new_figure,
    save_figure,
    wrap,
)
from sat_jax.plots.spectrogram import SpectrogramPool, draw_spectrogram, set_time_axis

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D


class Track(NamedTuple):
    """One model's scores of a clip.

    Attributes:
      label: the name in the legend.
      start: [k], where each score's chunk begins, seconds, ascending. Where chunks overlap, as with
        a sliding buffer, only the new part of each counts.
      end: [k], where it ends, seconds.
      probs: [k, y] in [0, 1].
    """

    label: str
    start: np.ndarray
    end: np.ndarray
    probs: np.ndarray


def plot_clip_scores(
    path: str | Path,
    *,
    title: str,
    spectrogram: SpectrogramPool,
    tracks: Sequence[Track],
    labels: Sequence[str],
    classes: Sequence[int],
    events: Sequence[Event] = (),
    mel_range: tuple[float, float] = (0.0, 8000.0),
) -> None:
    """Draws a clip's scores over time.

    Below the spectrogram each class has a panel: a line per track, constant over each chunk, and
    shaded times where the class is labelled. Each panel's axis ends just above its highest score,
    so that weak scores are visible too.

    Args:
      path: the picture, of a type in `figures.SUFFIXES`; an existing file is replaced.
      title: usually the clip's name.
      spectrogram: the clip's log-mel frames in dB.
      tracks: at least one with scores; up to nine have different colours.
      labels: [y] display names.
      classes: indices of the classes to draw, at least one; up to eight fit on a screen.
      events: labelled events; those of other classes are ignored.
      mel_range: lower and upper edge of the (HTK) mel filterbank, Hz.

    Raises:
      SatError: there is nothing to draw, matplotlib is missing, or the file cannot be written.
    """
    check_plot(path)
    scored = [track for track in tracks if len(track.start)]
    if not scored or not len(classes) or not spectrogram.columns().size:
        raise SatError(f"cannot draw {path}: {title} has no scores; give a longer clip")
    heights = [2.8] + [0.95] * len(classes)
    figure = new_figure(12.0, 1.2 + 1.1 * sum(heights) + 0.2 * len(scored))
    grid = figure.add_gridspec(len(heights), 2, width_ratios=[70, 1], height_ratios=heights)
    upper = figure.add_subplot(grid[0, 0])
    draw_title(upper, title)
    image = draw_spectrogram(upper, spectrogram, mel_range)
    figure.colorbar(image, cax=figure.add_subplot(grid[0, 1]), label="Level (dB)")
    panels = [figure.add_subplot(grid[row, 0], sharex=upper) for row in range(1, len(heights))]
    for axes, index in zip(panels, classes, strict=True):
        highest = max(float(np.max(track.probs[:, index])) for track in scored)
        _prepare_panel(axes, labels[index], _axis_end(highest))
        _shade(axes, [event for event in events if event.class_index == index])
        lines = [
            _draw_track(axes, track, index, place=place, count=len(scored))
            for place, track in enumerate(scored)
        ]
    set_time_axis(panels[-1], _end(scored, spectrogram))
    panels[-1].tick_params(labelbottom=True)
    _draw_legend(figure, lines, has_events=any(event.class_index in classes for event in events))
    save_figure(figure, path)


_MARKED = 6
"""Approximate number of markers on a line."""

_PATTERNS = ("solid", (0, (4, 1.2)), (0, (1, 1)))
"""Line styles of tracks."""

_AXIS_ENDS = (0.1, 0.2, 0.5, 1.0)
"""Possible upper ends of a panel's axis."""

_SHADE = "0.85"
"""The grey of labelled times."""


def _axis_end(highest: float) -> float:
    """Returns the smallest axis end that is not below the highest score."""
    return next((end for end in _AXIS_ENDS if highest <= end), _AXIS_ENDS[-1])


def _prepare_panel(axes: "Axes", label: str, end: float) -> None:
    axes.set_ylabel(
        wrap(label, 22, max_lines=3), rotation=0, ha="right", va="center", **name_style(9)
    )
    axes.set_ylim(-0.05 * end, 1.05 * end)
    axes.set_yticks([0.0, end / 2, end], ["0", "", f"{end:g}"], fontsize=8)
    axes.grid(axis="y", color="0.9", linewidth=0.6)
    axes.tick_params(labelbottom=False)


def _shade(axes: "Axes", events: Sequence[Event]) -> None:
    for event in events:
        axes.axvspan(event.onset, event.offset, color=_SHADE, linewidth=0, zorder=0)


def _draw_track(axes: "Axes", track: Track, index: int, *, place: int, count: int) -> "Line2D":
    """Draws a line that is constant over each chunk and interrupted between separate chunks."""
    start, end = np.asarray(track.start, float), np.asarray(track.end, float)
    times = np.stack([start, (start + end) / 2, end, end], axis=1)  # [k, 4]
    heights = np.repeat(np.asarray(track.probs)[:, index, None], 4, axis=1).astype(float)
    follows = np.append(np.isclose(start[1:], end[:-1], rtol=0, atol=1e-3), True)
    heights[~follows, 3] = np.nan  # Interrupts the line before a gap.
    stride = -(-len(start) // _MARKED)
    (line,) = axes.plot(
        times.ravel(),
        heights.ravel(),
        label=wrap(track.label, 40),
        color=COLORS[place % len(COLORS)],
        linestyle=_PATTERNS[place % len(_PATTERNS)],
        # Where tracks agree, the lower ones stay visible at the edges.
        linewidth=1.3 + 1.5 * (1 - (place + 1) / count),
        marker=MARKERS[place % len(MARKERS)],
        markersize=5,
        markevery=slice(1 + 4 * (place % stride), None, 4 * stride),
    )
    return line


def _draw_legend(figure: "Figure", lines: Sequence["Line2D"], *, has_events: bool) -> None:
    from matplotlib.patches import Patch

    artists = [*lines, *([Patch(color=_SHADE, label="Labelled")] if has_events else [])]
    names = [str(artist.get_label()) for artist in artists]
    longest = max(len(row) for name in names for row in name.split("\n"))
    draw_legend(
        figure,
        artists,
        loc="outside lower center",
        ncols=max(1, 125 // (longest + 12)),
        handlelength=3.5,
    )


def _end(tracks: Sequence[Track], spectrogram: SpectrogramPool) -> float:
    """Returns the clip's end in seconds, even if its last part has no score."""
    column = spectrogram.frames_per_column * spectrogram.hop_seconds
    frames_end = (spectrogram.columns().shape[1] - 1) * column
    return max(frames_end, *(float(track.end[-1]) for track in tracks))
