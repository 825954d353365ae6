"""All kinds of sources: their command-line flags, and opening one.

A new kind of source is one entry of `_KINDS` with its opener.
"""

import contextlib
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from absl import flags, logging

from data_pipeline.sources.clips import parse_columns, parse_where
from data_pipeline.sources.source import Source
from sat_jax.errors import SatError

# A dataset's name may end in a version, and a split may be sliced: "a/b:1.0.0:train[:10%]".
_TFDS = re.compile(r"(?P<name>[^:]+(?::[\d.*]+)?):(?P<split>.+)")


def _open_clips(
    table: str,
    label_names: Sequence[str],
    *,
    folder: str | None,
    columns: str | None,
    where: str | None,
    leave_out_missing: bool,
    **_: Any,
) -> Source:
    from data_pipeline.sources.clips import read_clips
    from data_pipeline.sources.folder import FolderSource

    clips = read_clips(
        table,
        label_names,
        folder=folder,
        columns=parse_columns(columns),
        where=parse_where(where),
    )
    return FolderSource(clips, leave_out_missing=leave_out_missing)


def _open_hdf5(table: str, label_names: Sequence[str], *, folder: str | None, **_: Any) -> Source:
    with _needing("h5py"):
        from data_pipeline.sources.hdf5 import Hdf5Source
    return Hdf5Source(table, num_classes=len(label_names), folder=folder)


def _open_tfds(
    name_and_split: str,
    label_names: Sequence[str],
    *,
    columns: str | None,
    data_dir: str | None,
    **_: Any,
) -> Source:
    match = _TFDS.fullmatch(name_and_split)
    if match is None:
        raise SatError(f"tfds={name_and_split} is not NAME:SPLIT: give a dataset and its split")
    with _needing("tensorflow-datasets"), _without_warnings():
        from data_pipeline.sources.tfds.source import TfdsSource

        audio, labels = parse_columns(columns) if columns else (None, None)
        source = TfdsSource(match["name"], match["split"], data_dir, audio=audio, labels=labels)
    if label_names:
        source.use_classes(label_names)
    return source


class _Kind(NamedTuple):
    """A kind of source.

    Attributes:
      help: of the flag that names a source of this kind.
      options: further flags that it takes.
      open: from the flag's value, the class names and all options to the source.
    """

    help: str
    options: Sequence[str]
    open: Callable[..., Source]


_KINDS = {
    "clips": _Kind(
        "CSV table of clips: file,labels and optionally start,end.",
        ("folder", "columns", "where"),
        _open_clips,
    ),
    "hdf5_tsv": _Kind("TSV table of clips in HDF5 files.", ("folder",), _open_hdf5),
    "tfds": _Kind("Prepared TensorFlow dataset, NAME:SPLIT.", ("columns", "data_dir"), _open_tfds),
}
_OPTIONS = {
    "folder": "folder that the table's files are relative to (default: the table's folder).",
    "columns": "FILE,LABELS: names of the CSV table's columns (default: file,labels) or of the "
    "dataset's audio and label features.",
    "where": "COLUMN=VALUE,VALUE: use these rows of the CSV table (default: all).",
    "data_dir": "folder of TensorFlow datasets (default: TFDS's own).",
}
_PATHS = ("clips", "hdf5_tsv", "folder", "data_dir")


def define_source_flags(flag_values: flags.FlagValues, prefix: str = "") -> None:
    """Defines the flags that `source_flags` reads.

    Args:
      flag_values: the program's flags.
      prefix: prefix of the flags' names, such as "valid_" for a program's second source.
    """
    title = f"Source ({prefix.rstrip('_')})" if prefix else "Source"
    texts = {name: kind.help for name, kind in _KINDS.items()} | _OPTIONS
    for name, text in texts.items():
        flags.DEFINE_string(prefix + name, None, f"{title}: {text}", flag_values=flag_values)


def source_flags(flag_values: flags.FlagValues, prefix: str = "") -> dict[str, Any] | None:
    """Returns the flags as arguments of `open_source`, or None if no source is given.

    Raises:
      flags.Error: several sources are given, or options without a source that takes them, or a
        value is malformed.
    """
    values = {name: flag_values[prefix + name].value for name in (*_KINDS, *_OPTIONS)}
    given = [f"--{prefix}{name}" for name, value in values.items() if value]
    if not given:
        return None
    kinds = [name for name in _KINDS if values[name]]
    if len(kinds) != 1:
        choices = ", ".join(f"--{prefix}{name}" for name in _KINDS)
        raise flags.Error(f"{' and '.join(given)}: give one of {choices}")
    for option in _OPTIONS:
        if values[option] and option not in _KINDS[kinds[0]].options:
            takers = [
                f"--{prefix}{name}" for name, kind in _KINDS.items() if option in kind.options
            ]
            raise flags.Error(
                f"--{prefix}{option} has no meaning with --{prefix}{kinds[0]}, only with "
                f"{' and '.join(takers)}"
            )
    try:
        parse_columns(values["columns"])
        parse_where(values["where"])
    except SatError as error:
        raise flags.Error(f"--{prefix}{error}") from error
    if values["tfds"] and not _TFDS.fullmatch(values["tfds"]):
        raise flags.Error(f"--{prefix}tfds={values['tfds']} is not NAME:SPLIT")
    return values


def resolved(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns arguments of `open_source` with absolute paths; addresses with "://" stay."""
    paths = {name: values[name] for name in _PATHS if values.get(name)}
    local = {name: os.path.realpath(path) for name, path in paths.items() if "://" not in path}
    return {**values, **local}


def open_source(
    label_names: Sequence[str],
    *,
    clips: str | None = None,
    hdf5_tsv: str | None = None,
    tfds: str | None = None,
    folder: str | None = None,
    columns: str | None = None,
    where: str | None = None,
    data_dir: str | None = None,
    leave_out_missing: bool = False,
) -> Source:
    """Opens a source of labelled clips: one of `clips`, `hdf5_tsv` and `tfds`.

    Args:
      label_names: the model's class names in output order; empty opens the clips without labels.
      clips: a CSV table, see `data_pipeline.sources.clips.read_clips`.
      hdf5_tsv: a TSV table, see `data_pipeline.sources.hdf5.Hdf5Source`.
      tfds: NAME:SPLIT of a prepared TensorFlow dataset.
      folder: folder that the files in the table are relative to; None is the table's folder.
      columns: FILE,LABELS: the CSV table's column names (None is file,labels) or the dataset's
        audio and label features (None finds them).
      where: COLUMN=VALUE,VALUE…: the rows of the CSV table to use; None is all.
      data_dir: folder of TensorFlow datasets; None is TFDS's own.
      leave_out_missing: leaves out clips of a CSV table whose file is missing; otherwise reading
        them fails.

    Raises:
      SatError: the source can't be opened, does not fit the classes, or a library is missing.
    """
    given = {"clips": clips, "hdf5_tsv": hdf5_tsv, "tfds": tfds}
    for name, value in given.items():
        if value:
            return _KINDS[name].open(
                value,
                label_names,
                folder=folder,
                columns=columns,
                where=where,
                data_dir=data_dir,
                leave_out_missing=leave_out_missing,
            )
    raise SatError(f"no source: give one of {', '.join(given)}")


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
    """Silences TFDS 4.9.10, which warns about its own code."""
    before = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        logging.set_verbosity(before)


@contextlib.contextmanager
def _needing(library: str) -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        raise SatError(
            f"this source needs {library} ({error}): pip install 'sat-jax[train]'"
        ) from error
