"""Settings of a tagging run, the paths it writes, and the checks before it starts.

The command line checks its flags with this module, so it imports no numpy or JAX.
"""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sat_jax.config import Aggregation, Mode, Warmup
from sat_jax.errors import SatError
from sat_jax.plots.figures import check_plot, check_suffix
from sat_jax.runtime.files import check_writable_folder, refuse_overwriting
from sat_jax.tagging.formats import check_format

if TYPE_CHECKING:
    import numpy as np

STDIN = "-"
"""The name of standard input among recordings."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaggingOptions:
    """Settings of a tagging run.

    Attributes:
      mode: "stream" tags chunk by chunk, "clip" tags each recording once, as a whole.
      aggregation: how clip mode combines the scores of a recording's windows.
      warmup: how stream mode fills the cache before the first chunk.
      k: the most tags per chunk.
      threshold: the least probability of a tag, one for all classes or [y] per class; None for no
        threshold.
      only: the only classes that may be tags; empty for all, see `sat_jax.labels.select_classes`.
      without: classes that are never tags.
      format_name: a key of `sat_jax.tagging.formats.FORMATS`.
      output: the file for the tags; None or "-" for standard output.
      scores_out: the folder for all scores, a ``.npz`` file per recording; None to save none.
      plot: the picture's path; None to draw none. With several recordings, each picture's name
        gets the recording's name appended.
      channel: the channel to tag, counted from 0; None for the mean of all channels.
      full_scale: the number that all samples are divided by.
      stdin_rate: sample rate of standard input, Hz.
      stdin_channels: number of interleaved channels of standard input.
      model: the path of the model, which no output may overwrite.
    """

    mode: Mode = "stream"
    aggregation: Aggregation = "mean"
    warmup: Warmup = "silence"
    k: int = 3
    threshold: "float | np.ndarray | None" = None
    only: Sequence[str] = ()
    without: Sequence[str] = ()
    format_name: str = "text"
    output: str | None = None
    scores_out: str | None = None
    plot: str | None = None
    channel: int | None = None
    full_scale: float = 1.0
    stdin_rate: int = 16_000
    stdin_channels: int = 1
    model: str | None = None


def check_options(options: TaggingOptions, recordings: Sequence[str]) -> None:
    """Checks options and recordings before a model is loaded.

    Args:
      options: the settings.
      recordings: paths, or "-" for standard input.

    Raises:
      SatError: there are no recordings, standard input is named twice, the format cannot hold as
        many recordings, the picture's file type is unknown, or an output would overwrite another
        file.
    """
    if not recordings:
        raise SatError("no recordings: name audio files, or - for PCM on standard input")
    if recordings.count(STDIN) > 1:
        raise SatError("- is named twice: standard input can be read only once")
    check_format(options.format_name, len(recordings))
    if options.plot:
        check_suffix(options.plot)
    _check_overwriting(options, recordings)


def _check_overwriting(options: TaggingOptions, recordings: Sequence[str]) -> None:
    """Refuses an output path that is an input or another output."""
    taken = {os.path.realpath(name): name for name in recordings if name != STDIN}
    outputs = [options.output, *score_paths(options, recordings), *plot_paths(options, recordings)]
    for path in outputs:
        if path is None or str(path) == STDIN:
            continue
        if options.model:
            refuse_overwriting(path, options.model)
        real = os.path.realpath(path)
        if real in taken:
            raise SatError(f"{path} would overwrite {taken[real]}: choose another output path")
        # Several outputs may go to a device, such as /dev/null.
        if os.path.isfile(real) or not os.path.exists(real):
            taken[real] = str(path)


def make_output_folders(options: TaggingOptions) -> None:
    """Makes sure that scores and pictures can be written, before hours of tagging.

    Raises:
      SatError: they cannot.
    """
    if options.scores_out:
        check_writable_folder(options.scores_out)
    if options.plot:
        check_plot(options.plot)
        check_writable_folder(Path(options.plot).parent)


def score_paths(options: TaggingOptions, recordings: Sequence[str]) -> list[Path | None]:
    """Returns the file for each recording's scores; None where none are saved."""
    if options.scores_out is None:
        return [None] * len(recordings)
    return list(distinct_paths(options.scores_out, recordings, suffix=".npz"))


def plot_paths(options: TaggingOptions, recordings: Sequence[str]) -> list[Path | None]:
    """Returns the file for each recording's picture; None where none is drawn."""
    if options.plot is None:
        return [None] * len(recordings)
    path = Path(options.plot)
    if len(recordings) == 1:
        return [path]
    named = distinct_paths(path.parent, recordings, suffix=path.suffix)
    return [each.with_name(f"{path.stem}-{each.name}") for each in named]


def distinct_paths(folder: str | Path, recordings: Sequence[str], *, suffix: str) -> list[Path]:
    """Returns a path per recording, named after its stem, all different.

    The first recording of a stem keeps it; the others get a number: ``a.npz``, ``a_2.npz``. Case is
    ignored, as many file systems do.

    Args:
      folder: the files' folder.
      recordings: paths, or "-", which is named ``stdin``.
      suffix: the files' suffix, with its dot.
    """
    stems = ["stdin" if name == STDIN else Path(name).stem for name in recordings]
    taken = {stem.casefold() for stem in stems}
    first = set(taken)
    paths = []
    for stem in stems:
        name, number = stem, 1
        if stem.casefold() in first:
            first.remove(stem.casefold())
        else:
            while name.casefold() in taken:
                number += 1
                name = f"{stem}_{number}"
            taken.add(name.casefold())
        paths.append(Path(folder) / f"{name}{suffix}")
    return paths
