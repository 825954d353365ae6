"""A picture of a recording: its spectrogram over a timeline of its strongest classes (floor 2)."""

import functools
import math
import re
import textwrap
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sat_jax.errors import SatError
from sat_jax.report.files import naming_file, replacing_file
from sat_jax.report.spectrogram import SpectrogramPool, group_max
from sat_jax.report.tags import ScoredChunk

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import QuadMesh
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

SUFFIXES = (".png", ".pdf", ".svg")
"""What a picture's name may end with."""


def check_plot(path: str | Path) -> None:
    """Refuses early, before hours of audio are tagged, what `plot_scores` could not draw.

    Args:
      path: the picture to be.

    Raises:
      SatError: matplotlib is missing, or the name says no known kind of picture.
    """
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise SatError(
            "drawing needs matplotlib, which is not installed: pip install 'sat-jax[plot]'"
        ) from error
    if Path(path).suffix.lower() not in SUFFIXES:
        raise SatError(f"cannot draw {path}: give a name that ends with {', '.join(SUFFIXES)}")


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
      path: the picture, ending with one of `SUFFIXES`.
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
    figure = _new_figure(len(strongest))
    upper, upper_bar, lower, lower_bar = figure.axes
    upper.set_title(
        _printable(title),
        loc="left",
        fontsize=11,
        fontweight="bold",
        fontfamily=_fonts(),
        parse_math=False,
    )
    image = _draw_spectrogram(upper, spectrogram, mel_range)
    figure.colorbar(image, cax=upper_bar, label="Level (dB)")
    mesh = _draw_timeline(lower, chunks, strongest)
    _name_rows(lower, [labels[index] for index in strongest])
    figure.colorbar(mesh, cax=lower_bar, label="Probability")
    _set_time_axis(lower, float(chunks[-1].end))
    _save(figure, path)


_MAX_COLUMNS = 1000
"""Cells in a row of the timeline at most; narrower than a dot of the picture, some would vanish."""

_MAX_WRITTEN = 12
"""Up to so many chunks, each cell's probability is written in it."""

_MAX_OUTLINED = 80
"""Up to so many chunks, each cell is outlined."""

_DYNAMIC_RANGE = 80.0
"""What the spectrogram shows under its loudest point, dB."""

_FALLBACK_FONTS = (
    "Noto Sans CJK JP",
    "Source Han Sans",
    "WenQuanYi Micro Hei",
    "Hiragino Sans",
    "PingFang SC",
    "Apple SD Gothic Neo",
    "Microsoft YaHei",
    "Yu Gothic",
    "Malgun Gothic",
    "Noto Sans Arabic",
    "Noto Sans Hebrew",
    "Noto Sans Thai",
    "Noto Sans Devanagari",
    "Arial Unicode MS",
)

_MEL_TICKS = (125, 250, 500, 1000, 2000, 4000, 8000, 16000)

_SHORT_STEPS = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0)
_TIME_STEPS = (*_SHORT_STEPS, *(60.0 * n for n in (1, 2, 5, 10, 15, 30, 60, 120, 360, 720, 1440)))


def _strongest(chunks: Sequence[ScoredChunk], num_classes: int) -> np.ndarray:
    """Indices of the classes with the highest peaks, highest first."""
    peaks = functools.reduce(np.maximum, (np.asarray(chunk.probs) for chunk in chunks))
    return np.argsort(-peaks, kind="stable")[:num_classes]


def _new_figure(num_rows: int) -> "Figure":
    # Without pyplot: no window, no state shared with a program that draws its own figures.
    from matplotlib.figure import Figure

    heights = [2.8, max(0.9, 0.36 * num_rows)]
    figure = Figure(figsize=(12.0, sum(heights) + 1.1), dpi=130)
    figure.set_layout_engine("constrained", w_pad=0.1, h_pad=0.08)
    figure.subplots(2, 2, width_ratios=[70, 1], height_ratios=heights, sharex="col")
    return figure


def _draw_spectrogram(
    axes: "Axes", spectrogram: SpectrogramPool, mel_range: tuple[float, float]
) -> "AxesImage":
    columns = spectrogram.columns()
    low, high = (_mel(frequency) for frequency in mel_range)
    column = spectrogram.frames_per_column * spectrogram.hop_seconds
    # The first frame is centred on the first sample.
    left = -0.5 * spectrogram.hop_seconds
    loudest = columns.max()
    image = axes.imshow(
        columns,
        origin="lower",
        aspect="auto",
        cmap="magma",
        vmin=max(loudest - _DYNAMIC_RANGE, columns.min() - 1.0),
        vmax=loudest,
        extent=(left, left + columns.shape[1] * column, low, high),
    )
    ticks = [hertz for hertz in _MEL_TICKS if mel_range[0] < hertz <= mel_range[1]]
    axes.set_yticks([_mel(hertz) for hertz in ticks], [f"{hertz}" for hertz in ticks])
    axes.set_ylabel("Frequency (Hz)")
    axes.tick_params(labelbottom=False)
    return image


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
    wrapped = [_wrap(_printable(name)) for name in names]
    size = 8 if any("\n" in name for name in wrapped) else 9
    axes.set_yticks(
        np.arange(len(names)) + 0.5,
        wrapped,
        fontsize=size,
        fontfamily=_fonts(),
        parse_math=False,
    )
    axes.tick_params(axis="y", length=0)


def _wrap(name: str) -> str:
    lines = textwrap.wrap(name, 30)
    return "\n".join([*lines[:1], lines[1][:28] + "…"] if len(lines) > 2 else lines)


def _fonts() -> list[str]:
    """The standard font and, behind it for what it lacks, fonts of other scripts if installed."""
    from matplotlib.font_manager import fontManager

    installed = set(fontManager.get_font_names())
    return ["DejaVu Sans", *(name for name in _FALLBACK_FONTS if name in installed)]


def _set_time_axis(axes: "Axes", end: float) -> None:
    step = next((step for step in _TIME_STEPS if end / step <= 12), end / 12)
    ticks = np.arange(0.0, end + 0.01 * step, step)
    axes.set_xlim(0.0, end)
    if end < 120:
        axes.set_xticks(ticks, [f"{round(tick, 2):g}" for tick in ticks])
        axes.set_xlabel("Time (s)")
    elif end < 3600:
        axes.set_xticks(ticks, [f"{tick // 60:.0f}:{tick % 60:02.0f}" for tick in ticks])
        axes.set_xlabel("Time (min:s)")
    else:
        axes.set_xticks(ticks, [f"{tick // 3600:.0f}:{tick % 3600 // 60:02.0f}" for tick in ticks])
        axes.set_xlabel("Time (h:min)")


def _save(figure: "Figure", path: str | Path) -> None:
    kind = Path(path).suffix.lower().removeprefix(".")
    with naming_file(path), replacing_file(path) as temporary, warnings.catch_warnings():
        # A name in a script that the fonts here lack is drawn as boxes, which is warning enough.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(temporary, format=kind)


def _mel(hertz: float) -> float:
    """The HTK mel scale, on which the filterbank's bands are equally wide."""
    return 2595.0 * math.log10(1.0 + hertz / 700.0)


def _printable(text: str) -> str:
    """Makes a name drawable: no control characters, no undecodable bytes, no endless line."""
    text = re.sub(r"[\x00-\x1f\x7f-\x9f]", " ", text)
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return text if len(text) <= 84 else f"{text[:42]} … {text[-39:]}"
