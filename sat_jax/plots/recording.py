"""A picture of a recording: its spectrogram above a timeline of its strongest classes."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sat_jax.errors import SatError
from sat_jax.plots.figures import (
    check_plot,
    draw_title,
    name_style,
    new_figure,
    save_figure,
    wrap,
)
from sat_jax.plots.spectrogram import (
    SpectrogramPool,
    draw_spectrogram,
    group_max,
    set_time_axis,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import QuadMesh

_NUM_CLASSES = 8
"""Classes in the timeline."""

_MAX_COLUMNS = 1000
"""Cells in a row of the timeline. Narrower than a pixel, some would vanish."""

_MAX_WRITTEN = 12
"""Up to this many chunks, each cell shows its probability as a number."""

_MAX_OUTLINED = 80
"""Up to this many chunks, each cell is outlined."""


def plot_recording(
    path: str | Path,
    *,
    title: str,
    spectrogram: SpectrogramPool,
    start: np.ndarray,
    end: np.ndarray,
    probs: np.ndarray,
    labels: Sequence[str],
    mel_range: tuple[float, float],
) -> None:
    """Draws a recording's spectrogram and the classes with the highest peaks.

    Args:
      path: the picture, of a type in `figures.SUFFIXES`; an existing file is replaced.
      title: usually the recording's name.
      spectrogram: the recording's log-mel frames in dB.
      start: [k], where each chunk begins, seconds.
      end: [k], where each chunk ends, seconds.
      probs: [k, y], each chunk's probabilities.
      labels: [y] display names.
      mel_range: lower and upper edge of the (HTK) mel filterbank, Hz.

    Raises:
      SatError: there is no chunk, matplotlib is missing, or the file cannot be written.
    """
    check_plot(path)
    if not len(probs) or not spectrogram.columns().size:
        raise SatError(f"cannot draw {path}: {title} has no scored chunk; give a longer recording")
    strongest = np.argsort(-probs.max(axis=0), kind="stable")[:_NUM_CLASSES]
    heights = [2.8, max(0.9, 0.36 * len(strongest))]
    figure = new_figure(12.0, sum(heights) + 1.1)
    figure.subplots(2, 2, width_ratios=[70, 1], height_ratios=heights, sharex="col")
    upper, upper_bar, lower, lower_bar = figure.axes
    draw_title(upper, title)
    image = draw_spectrogram(upper, spectrogram, mel_range)
    figure.colorbar(image, cax=upper_bar, label="Level (dB)")
    mesh = _draw_timeline(lower, start, float(end[-1]), probs[:, strongest].T)
    _name_rows(lower, [labels[index] for index in strongest])
    figure.colorbar(mesh, cax=lower_bar, label="Probability")
    set_time_axis(lower, float(end[-1]))
    save_figure(figure, path)


def _draw_timeline(axes: "Axes", start: np.ndarray, end: float, probs: np.ndarray) -> "QuadMesh":
    """Draws probabilities [classes, k] as cells, one row per class."""
    num_classes, num_chunks = probs.shape
    size = -(-num_chunks // _MAX_COLUMNS)
    edges = np.append(start[::size], end)
    mesh = axes.pcolormesh(
        edges, np.arange(num_classes + 1), group_max(probs, size), cmap="Blues", vmin=0, vmax=1
    )
    mesh.set_rasterized(True)
    lines = edges[1:-1] if num_chunks <= _MAX_OUTLINED else ()
    axes.vlines(lines, 0, num_classes, colors="white", linewidth=1.0)
    axes.hlines(range(1, num_classes), edges[0], edges[-1], colors="white", linewidth=1.5)
    if num_chunks <= _MAX_WRITTEN:
        _write_probs(axes, edges, probs)
    axes.set_ylim(num_classes, 0)
    return mesh


def _write_probs(axes: "Axes", edges: np.ndarray, probs: np.ndarray) -> None:
    centres, widths = edges[:-1] + np.diff(edges) / 2, np.diff(edges)
    for (row, column), prob in np.ndenumerate(probs):
        if widths[column] > 0.05 * (edges[-1] - edges[0]):
            axes.text(
                float(centres[column]),
                row + 0.5,
                f"{prob:.2f}",
                ha="center",
                va="center",
                fontsize=8.5,
                color="white" if prob > 0.65 else "black",
            )


def _name_rows(axes: "Axes", names: Sequence[str]) -> None:
    wrapped = [wrap(name, 30) for name in names]
    size = 8 if any("\n" in name for name in wrapped) else 9
    axes.set_yticks(np.arange(len(names)) + 0.5, wrapped, **name_style(size))
    axes.tick_params(axis="y", length=0)
