"""What all pictures share: paper, names, colours, spectrogram, time axis, saving."""

import math
import re
import textwrap
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sat_jax.errors import SatError
from sat_jax.plots.spectrogram import SpectrogramPool
from sat_jax.runtime.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

SUFFIXES = (".png", ".pdf", ".svg")
"""What a picture's name may end with."""

BLUE, RED, GREEN, PURPLE = "#0072b2", "#d55e00", "#009e73", "#cc6ba5"
COLORS = (BLUE, RED, GREEN, PURPLE, "#000000", "#e69f00", "#56b4e9", "#8c564b", "#7f7f7f")
"""Nine colours, most of which the colour-blind tell apart too."""

MARKERS = ("o", "s", "^", "D", "v", "X", "P", "<", "*")
"""As many markers, for those who print in black and white."""

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


def check_plot(path: str | Path) -> None:
    """Refuses early, before hours of audio are tagged, what could not be drawn.

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


def new_figure(width: float, height: float) -> "Figure":
    """An empty picture, width and height in inches, whose parts make room for each other."""
    # Without pyplot: no window, no state shared with a program that draws its own figures.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=130)
    figure.set_layout_engine("constrained", w_pad=0.1, h_pad=0.08)
    return figure


def save_figure(figure: "Figure", path: str | Path) -> None:
    """Saves a picture, whole or not at all; one of that name is replaced.

    Raises:
      SatError: the file cannot be written.
    """
    kind = Path(path).suffix.lower().removeprefix(".")
    with atomic_write(path) as temporary, warnings.catch_warnings():
        # A name in a script that the fonts here lack is drawn as boxes, which is warning enough.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(temporary, format=kind)


def printable(text: str) -> str:
    """Makes a name drawable: no control characters, no undecodable bytes, no endless line."""
    text = re.sub(r"[\x00-\x1f\x7f-\x9f]", " ", text)
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return text if len(text) <= 84 else f"{text[:42]} … {text[-39:]}"


def wrap(name: str, width: int, *, max_lines: int = 2) -> str:
    """Makes a name drawable on a few lines of about `width` characters; … stands for the rest."""
    lines = textwrap.wrap(printable(name), width)
    if len(lines) > max_lines:
        lines[max_lines - 1 :] = [lines[max_lines - 1][: width - 2] + "…"]
    return "\n".join(lines)


def name_style(size: float) -> dict[str, Any]:
    """How matplotlib writes a name: dollar signs as they are, and in fonts of other scripts too."""
    from matplotlib.font_manager import fontManager

    installed = set(fontManager.get_font_names())
    # The standard font and, behind it for what it lacks, those of other scripts if installed.
    fonts = ["DejaVu Sans", *(name for name in _FALLBACK_FONTS if name in installed)]
    return {"fontsize": size, "fontfamily": fonts, "parse_math": False}


def draw_title(axes: "Axes", title: str) -> None:
    """Names a picture over the left end of its uppermost axes."""
    axes.set_title(printable(title), loc="left", fontweight="bold", **name_style(11))


def draw_legend(figure: "Figure", artists: Sequence["Artist"], **options: Any) -> None:
    """Draws a legend beside all axes, where it covers nothing.

    Args:
      figure: the picture.
      artists: what is explained, in order; each has its name as its label.
      **options: `loc`, one of matplotlib's "outside …", and others of its legends.
    """
    legend = figure.legend(handles=artists, frameon=False, **options)
    for text in legend.get_texts():
        text.set(**name_style(9))


def draw_spectrogram(
    axes: "Axes", spectrogram: SpectrogramPool, mel_range: tuple[float, float]
) -> "AxesImage":
    """Draws log-mel frames in dB over seconds, with ticks in Hz.

    Args:
      axes: an empty one.
      spectrogram: at least one frame.
      mel_range: lower and upper edge of the (HTK) mel filterbank, Hz.

    Returns:
      What a colour bar belongs to.
    """
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


def set_time_axis(axes: "Axes", end: float) -> None:
    """Makes the x axis a time axis from 0 to `end` seconds, in the unit that suits."""
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


def _mel(hertz: float) -> float:
    """The HTK mel scale, on which the filterbank's bands are equally wide."""
    return 2595.0 * math.log10(1.0 + hertz / 700.0)
