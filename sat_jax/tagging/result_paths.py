"""The files that a tagging run writes for each recording."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from sat_jax.tagging.formats import FORMATS
from sat_jax.tagging.options import Recording, TaggingOptions


class ResultPaths(NamedTuple):
    """A recording's files; None for those that are not written."""

    tags: Path | None
    scores: Path | None
    plot: Path | None


def result_paths(options: TaggingOptions, recordings: Sequence[Recording]) -> list[ResultPaths]:
    """Returns the files for each recording's tags, scores and picture.

    With `output_dir`, a result bears the whole name of the recording's file: the tags of a.wav and
    a.flac are a.wav.csv and a.flac.csv, whatever else is tagged, so that a later run finds them.
    Without it, names are short: a.npz, a_2.npz.
    """
    nothing = [None] * len(recordings)
    name_files = whole_names if options.output_dir else distinct_names
    tags: Sequence[Path | None] = nothing
    scores: Sequence[Path | None] = nothing
    plots: Sequence[Path | None] = nothing
    if options.output_dir:
        suffix = FORMATS[options.format_name].suffix
        tags = whole_names(options.output_dir, recordings, suffix=suffix)
    if options.scores_out:
        scores = name_files(options.scores_out, recordings, suffix=".npz")
    if options.plot:
        path = Path(options.plot)
        named = name_files(path.parent, recordings, suffix=path.suffix)
        plots = [each.with_name(f"{path.stem}-{each.name}") for each in named]
        if len(recordings) == 1:
            plots = [path]
    return [ResultPaths(*paths) for paths in zip(tags, scores, plots, strict=True)]


def whole_names(folder: str | Path, recordings: Sequence[Recording], *, suffix: str) -> list[Path]:
    """Returns a path per recording: its place with the suffix appended."""
    return [Path(folder) / f"{recording.place}{suffix}" for recording in recordings]


def distinct_names(
    folder: str | Path, recordings: Sequence[Recording], *, suffix: str
) -> list[Path]:
    """Returns a path per recording, its place with another suffix, all different.

    The first recording of a name keeps it; the others get a number: ``a.npz``, ``a_2.npz``. Case is
    ignored, as many file systems do.

    Args:
      folder: the files' folder.
      recordings: what is tagged.
      suffix: the files' suffix, with its dot.
    """
    stems = [os.path.splitext(recording.place)[0] for recording in recordings]
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
