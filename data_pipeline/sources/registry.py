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
    match = _match_tfds(name_and_split)
    with _needing("tensorflow-datasets"), _without_warnings():
        from data_pipeline.sources.tfds.source import TfdsSource

        audio, labels = parse_columns(columns) if columns else (None, None)
        source = TfdsSource(match["name"], match["split"], data_dir, audio=audio, labels=labels)
    if label_names:
        source.use_classes(label_names)
    return source


def _match_tfds(text: str) -> re.Match[str]:
    match = _TFDS.fullmatch(text)
    if match is None:
        raise SatError(f"tfds={text} is not NAME:SPLIT: give a dataset and its split")
    return match


class _Flag(NamedTuple):
    """A flag of sources.

    Attributes:
      help: what its value is.
      is_path: whether its value is a path.
      check: raises `SatError`, whose text begins with NAME=VALUE, for a malformed value.
    """

    help: str
    is_path: bool = False
    check: Callable[[str], object] = str


class _Kind(NamedTuple):
    """A kind of source.

    Attributes:
      flag: the flag that names a source of this kind.
      options: further flags that it takes.
      open: from the flag's value, the class names, the options by name and `leave_out_missing` to
        the source.
    """

    flag: _Flag
    options: Sequence[str]
    open: Callable[..., Source]


_KINDS = {
    "clips": _Kind(
        _Flag("a CSV table with the columns file, labels and optionally start, end.", is_path=True),
        ("folder", "columns", "where"),
        _open_clips,
    ),
    "hdf5_tsv": _Kind(
        _Flag("a TSV table of clips in HDF5 files.", is_path=True), ("folder",), _open_hdf5
    ),
    "tfds": _Kind(
        _Flag('a prepared TensorFlow dataset, as "NAME:SPLIT".', check=_match_tfds),
        ("columns", "data_dir"),
        _open_tfds,
    ),
}
_OPTIONS = {
    "folder": _Flag("the folder of the table's files. Default: the table's folder.", is_path=True),
    "columns": _Flag(
        "names of the CSV table's columns (default: file,labels), or of the dataset's audio and "
        'label features, as "FILE,LABELS".',
        check=parse_columns,
    ),
    "where": _Flag(
        'the rows of the CSV table to use, as "COLUMN=VALUE,VALUE". Default: all.',
        check=parse_where,
    ),
    "data_dir": _Flag("the folder of TensorFlow datasets. Default: TFDS's own.", is_path=True),
}
_FLAGS = {name: kind.flag for name, kind in _KINDS.items()} | _OPTIONS
_NAMED_FLAG = re.compile(rf"--({'|'.join(_FLAGS)})\b")


def define_source_flags(
    flag_values: flags.FlagValues, prefix: str = "", *, title: str = "Clips"
) -> None:
    """Defines the flags that `source_flags` reads.

    Args:
      flag_values: the program's flags.
      prefix: prefix of the flags' names, such as "valid_" for a program's second source.
      title: the first words of their help.
    """
    for name, flag in _FLAGS.items():
        text = f"{title}: {flag.help}"
        flags.DEFINE_string(prefix + name, None, text, flag_values=flag_values)


def source_choices(prefix: str = "") -> str:
    """Returns the flags of all kinds for a message: "--clips, --hdf5_tsv or --tfds"."""
    *others, last = (f"--{prefix}{name}" for name in _KINDS)
    return f"{', '.join(others)} or {last}"


def source_flags(flag_values: flags.FlagValues, prefix: str = "") -> dict[str, Any] | None:
    """Returns the flags as arguments of `open_source`, or None if no source is given.

    Raises:
      flags.Error: several sources are given, or options without a source that takes them, or a
        value is malformed.
    """
    values = {name: flag_values[prefix + name].value for name in _FLAGS}
    given = {name: value for name, value in values.items() if value}
    if not given:
        return None
    kinds = [name for name in _KINDS if name in given]
    if len(kinds) != 1:
        names = " and ".join(f"--{prefix}{name}" for name in given)
        raise flags.Error(f"{names}: give one of {source_choices(prefix)}")
    for name, value in given.items():
        if name in _OPTIONS and name not in _KINDS[kinds[0]].options:
            takers = [
                f"--{prefix}{taker}" for taker, kind in _KINDS.items() if name in kind.options
            ]
            raise flags.Error(
                f"--{prefix}{name} has no meaning with --{prefix}{kinds[0]}, only with "
                f"{' and '.join(takers)}"
            )
        try:
            _FLAGS[name].check(value)
        except SatError as error:
            raise flags.Error(f"--{prefix}{error}") from error
    return values


def resolved(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns arguments of `open_source` with absolute paths; addresses with "://" stay."""
    paths = {name: value for name, value in values.items() if value and _FLAGS[name].is_path}
    local = {name: os.path.realpath(path) for name, path in paths.items() if "://" not in path}
    return {**values, **local}


def open_source(
    label_names: Sequence[str],
    *,
    leave_out_missing: bool = False,
    prefix: str = "",
    **values: str | None,
) -> Source:
    """Opens a source of labelled clips.

    Args:
      label_names: the model's class names in output order; empty opens the clips without labels.
      leave_out_missing: leaves out clips of a CSV table whose file is missing; otherwise reading
        them fails.
      prefix: of the flags that errors name, see `define_source_flags`.
      **values: the source, under the name of its kind, and options of this kind. Names and
        meanings are those of the flags without their prefix: `clips`, `hdf5_tsv` or `tfds`;
        `folder`, `columns`, `where`, `data_dir`. None is as if left out.

    Raises:
      SatError: the source can't be opened, does not fit the classes, or a library is missing.
      TypeError: no option has this name.
    """
    if unknown := values.keys() - _FLAGS.keys():
        raise TypeError(f"unknown arguments: {', '.join(sorted(unknown))}")
    for name, kind in _KINDS.items():
        if value := values.get(name):
            options = {option: values.get(option) for option in kind.options}
            with _naming_flags(prefix):
                return kind.open(value, label_names, leave_out_missing=leave_out_missing, **options)
    raise SatError(f"no source: give one of {', '.join(_KINDS)}")


@contextlib.contextmanager
def _naming_flags(prefix: str) -> Iterator[None]:
    """Puts the prefix before the names of flags in errors; sources do not know it."""
    try:
        yield
    except SatError as error:
        if not prefix:
            raise
        message = _NAMED_FLAG.sub(rf"--{prefix}\1", str(error))
        raise type(error)(message) from error


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
