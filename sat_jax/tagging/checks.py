"""Checks of a tagging run before a model is loaded.

The command line checks its flags with this module, so it imports no numpy or JAX.
"""

import functools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from sat_jax.errors import SatError
from sat_jax.plots.figures import check_plot, check_suffix
from sat_jax.runtime.files import check_writable_folder, refuse_overwriting
from sat_jax.tagging.formats import FORMATS, check_format
from sat_jax.tagging.options import STDIN, Recording, TaggingOptions
from sat_jax.tagging.result_paths import result_paths


def check_options(options: TaggingOptions, recordings: Sequence[Recording]) -> None:
    """Checks options and recordings before a model is loaded.

    Args:
      options: the settings.
      recordings: what to tag.

    Raises:
      SatError: there are no recordings, standard input is named twice, the format cannot hold as
        many recordings, settings exclude each other, the picture's file type is unknown, or an
        output would overwrite another file.
    """
    if not recordings:
        raise SatError("no recordings: name audio files or folders, or - for standard input")
    if sum(recording.name == STDIN for recording in recordings) > 1:
        raise SatError("- is named twice: standard input can be read only once")
    if options.output and options.output_dir:
        raise SatError("output and output_dir exclude each other: give one of them")
    if options.skip_existing and not options.output_dir:
        raise SatError("skip_existing has no effect without output_dir: give the folder")
    check_format(options.format_name, 1 if options.output_dir else len(recordings))
    if options.start_time and not FORMATS[options.format_name].has_clock:
        others = ", ".join(key for key, value in FORMATS.items() if value.has_clock)
        raise SatError(
            f"start_time has no effect with format {options.format_name}, whose times count from "
            f"the start: use one of {others}"
        )
    if FORMATS[options.format_name].tells_events:
        _check_events(options)
    if options.plot:
        check_suffix(options.plot)
    _check_overwriting(options, recordings)


def _check_events(options: TaggingOptions) -> None:
    if options.mode == "clip":
        others = ", ".join(key for key, value in FORMATS.items() if not value.tells_events)
        raise SatError(
            f"mode clip has no events for format {options.format_name}: use mode stream, or one of "
            f"{others}"
        )
    if isinstance(options.threshold, float) and not 0.0 < options.threshold < 1.0:
        raise SatError(
            f"threshold={options.threshold:g} starts no events: use a number above 0 and below 1"
        )


def _check_overwriting(options: TaggingOptions, recordings: Sequence[Recording]) -> None:
    """Refuses an output path that is an input or another output.

    Recordings may be thousands on a slow disk, so it looks only at those outputs that exist.
    """
    real_folder = functools.cache(os.path.realpath)

    @functools.cache
    def inputs() -> dict[str, str]:
        return {os.path.realpath(each.name): each.name for each in recordings}

    taken: dict[str, str] = {}
    for path in _outputs(options, recordings):
        folder, name = os.path.split(path)
        real = os.path.join(real_folder(folder), name)
        if os.path.lexists(real):
            real = os.path.realpath(real)
            if real in inputs():
                raise SatError(f"{path} would overwrite {inputs()[real]}: choose another output")
            if options.model:
                refuse_overwriting(path, options.model)
            if not os.path.isfile(real):  # Several outputs may go to a device, as /dev/null.
                continue
        if real in taken:
            raise SatError(
                f"two results would be {path}: tag a folder that holds all the recordings, or use "
                "other output paths"
            )
        taken[real] = path


def _outputs(options: TaggingOptions, recordings: Sequence[Recording]) -> Iterator[str]:
    if options.output and options.output != STDIN:
        yield options.output
    for paths in result_paths(options, recordings):
        # Existing files of tags are not written again with skip_existing.
        is_skipped = options.skip_existing and paths.tags and os.path.exists(paths.tags)
        if not is_skipped:
            yield from (str(path) for path in paths if path)


def make_output_folders(options: TaggingOptions) -> None:
    """Makes sure that results can be written, before hours of tagging.

    Raises:
      SatError: they cannot.
    """
    for folder in (options.output_dir, options.scores_out):
        if folder:
            check_writable_folder(folder)
    if options.plot:
        check_plot(options.plot)
        check_writable_folder(Path(options.plot).parent)
