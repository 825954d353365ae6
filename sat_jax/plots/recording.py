"""A picture of a recording: its spectrogram over a timeline of its strongest classes."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sat_jax.errors import SatError
from sat_jax.plots.figures import (
    check_plot,
    draw_spectrogram,
    draw_title,
    name_style,
    new_figure,
    save_figure,
    set_time_axis,
    wrap,
)
from sat_jax.plots.spectrogram import SpectrogramPool, group_max
from sat_jax.tagging.tags import ScoredChunk

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import QuadMesh


def plot_scores(
    path: str | Path,
    *,
    title: str,
    spectrogram: SpectrogramPool,
    chunks: Sequence[ScoredChunk],
    labels: Sequence[str],
    num_classes: int = 8,
    mel_range: tuple[float, float] = (0.0, 8000.0),
) -> None:
    """Draws a recording; a picture of that name is replaced.

    Args:
      path: the picture, ending with one of `figures.SUFFIXES`.
      title: what stands over it, usually the recording's name.
      spectrogram: the recording's log-mel frames in dB.
      chunks: the recording's chunks in order, at least one.
      labels: [y] display names.
      num_classes: how many classes are shown, those with the highest peaks.
      mel_range: lower and upper edge of the (HTK) mel filterbank, Hz.

    Raises:
      SatError: there is nothing to draw, matplotlib is missing, or the file cannot be written.
    """
    check_plot(path)
    if not chunks or not spectrogram.columns().size:
        raise SatError(f"cannot draw {path}: {title} has no scored chunk; give a longer recording")
    strongest = _strongest(chunks, num_classes)
    heights = [2.8, max(0.9, 0.36 * len(strongest))]
    figure = new_figure(12.0, sum(heights) + 1.1)
    figure.subplots(2, 2, width_ratios=[70, 1], height_ratios=heights, sharex="col")
    upper, upper_bar, lower, lower_bar = figure.axes
    draw_title(upper, title)
    image = draw_spectrogram(upper, spectrogram, mel_range)
    figure.colorbar(image, cax=upper_bar, label="Level (dB)")
    mesh = _draw_timeline(lower, chunks, strongest)
    _name_rows(lower, [labels[index] for index in strongest])
    figure.colorbar(mesh, cax=lower_bar, label="Probability")
    set_time_axis(lower, float(chunks[-1].end))
    save_figure(figure, path)


_MAX_COLUMNS = 1000
"""Cells in a row of the timeline at most; narrower than a dot of the picture, some would vanish."""

_MAX_WRITTEN = 12
"""Up to so many chunks, each cell's probability is written in it."""

_MAX_OUTLINED = 80
"""Up to so many chunks, each cell is outlined."""


def _strongest(chunks: Sequence[ScoredChunk], num_classes: int) -> np.ndarray:
    """Indices of the classes with the highest peaks, highest first."""
    peaks = functools.reduce(np.maximum, (np.asarray(chunk.probs) for chunk in chunks))
    return np.argsort(-peaks, kind="stable")[:num_classes]


def _draw_timeline(axes: "Axes", chunks: Sequence[ScoredChunk], classes: np.ndarray) -> "QuadMesh":
    probs = np.stack([np.asarray(chunk.probs)[classes] for chunk in chunks], axis=1)
    size = -(-len(chunks) // _MAX_COLUMNS)
    edges = np.array([*(chunk.start for chunk in chunks[::size]), chunks[-1].end])
    mesh = axes.pcolormesh(
        edges, np.arange(len(classes) + 1), group_max(probs, size), cmap="Blues", vmin=0, vmax=1
    )
    mesh.set_rasterized(True)
    lines = edges[1:-1] if len(chunks) <= _MAX_OUTLINED else ()
    axes.vlines(lines, 0, len(classes), colors="white", linewidth=1.0)
    axes.hlines(range(1, len(classes)), edges[0], edges[-1], colors="white", linewidth=1.5)
    if len(chunks) <= _MAX_WRITTEN:
        _write_probs(axes, edges, probs)
    axes.set_ylim(len(classes), 0)
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
