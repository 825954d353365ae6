"""Parts that all pictures share: figures, names, colours, legends and saving."""

import re
import textwrap
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sat_jax.errors import SatError
from sat_jax.runtime.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SUFFIXES = (".png", ".pdf", ".svg")
"""File types of pictures."""

BLUE, RED, GREEN, PURPLE = "#0072b2", "#d55e00", "#009e73", "#cc6ba5"
COLORS = (BLUE, RED, GREEN, PURPLE, "#000000", "#e69f00", "#56b4e9", "#8c564b", "#7f7f7f")
"""Nine colours, most of them distinct for colour-blind readers too."""

MARKERS = ("o", "s", "^", "D", "v", "X", "P", "<", "*")
"""As many markers, for print in black and white."""

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


def check_plot(path: str | Path) -> None:
    """Checks, before hours of work, that a picture can be drawn.

    Args:
      path: the picture's path.

    Raises:
      SatError: the file type is not one of `SUFFIXES`, or matplotlib is missing.
    """
    check_suffix(path)
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise SatError("matplotlib is not installed: pip install 'sat-jax[plot]'") from error


def check_suffix(path: str | Path) -> None:
    """Raises `SatError` if the file type of a picture is not one of `SUFFIXES`."""
    if Path(path).suffix.lower() not in SUFFIXES:
        raise SatError(f"cannot draw {path}: use a name that ends in {', '.join(SUFFIXES)}")


def new_figure(width: float, height: float) -> "Figure":
    """Returns an empty figure; width and height in inches. Its axes never overlap."""
    # pyplot would open windows and share state with programs that draw their own figures.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=130)
    figure.set_layout_engine("constrained", w_pad=0.1, h_pad=0.08)
    return figure


def save_figure(figure: "Figure", path: str | Path) -> None:
    """Saves a picture completely or not at all; replaces an existing file.

    Raises:
      SatError: the file cannot be written.
    """
    kind = Path(path).suffix.lower().removeprefix(".")
    with atomic_write(path) as temporary, warnings.catch_warnings():
        # Characters that no installed font has are drawn as boxes; that is warning enough.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(temporary, format=kind)


def printable(text: str) -> str:
    """Replaces control characters and undecodable bytes, and shortens a name to 84 characters."""
    text = re.sub(r"[\x00-\x1f\x7f-\x9f]", " ", text)
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return text if len(text) <= 84 else f"{text[:42]} … {text[-39:]}"


def wrap(name: str, width: int, *, max_lines: int = 2) -> str:
    """Wraps a name into lines of about `width` characters; … replaces what does not fit."""
    lines = textwrap.wrap(printable(name), width)
    if len(lines) > max_lines:
        lines[max_lines - 1 :] = [lines[max_lines - 1][: width - 2] + "…"]
    return "\n".join(lines)


def name_style(size: float) -> dict[str, Any]:
    """Returns matplotlib's text options for names: no mathtext, and fonts for other scripts."""
    from matplotlib.font_manager import fontManager

    installed = set(fontManager.get_font_names())
    # The other fonts serve characters that the standard font lacks.
    fonts = ["DejaVu Sans", *(name for name in _FALLBACK_FONTS if name in installed)]
    return {"fontsize": size, "fontfamily": fonts, "parse_math": False}


def draw_title(axes: "Axes", title: str) -> None:
    """Writes a picture's title above the left end of its uppermost axes."""
    axes.set_title(printable(title), loc="left", fontweight="bold", **name_style(11))


def draw_legend(figure: "Figure", artists: Sequence["Artist"], **options: Any) -> None:
    """Draws a legend outside of all axes.

    Args:
      figure: the picture.
      artists: the legend's entries in order, with their labels.
      **options: matplotlib's legend options, among them `loc` ("outside …").
    """
    legend = figure.legend(handles=artists, frameon=False, **options)
    for text in legend.get_texts():
        text.set(**name_style(9))
