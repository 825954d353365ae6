"""Sources of labelled clips, chosen by command-line flags."""

import contextlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from absl import flags, logging

from data_pipeline.sources.clips import parse_columns, parse_where
from data_pipeline.sources.source import Source
from sat_jax.errors import SatError

# The name of a data set may end in a version, and a split may be cut: "a/b:1.0.0:train[:10%]".
_TFDS = re.compile(r"(?P<name>[^:]+(?::[\d.*]+)?):(?P<split>.+)")
_MAIN_FLAGS = ("clips", "hdf5_tsv", "tfds")
_BELONG = {
    "folder": ("clips", "hdf5_tsv"),
    "columns": ("clips", "tfds"),
    "where": ("clips",),
    "data_dir": ("tfds",),
}
"""Further flags, and with which of those they mean something."""
_SOURCE_FLAGS = (*_MAIN_FLAGS, *_BELONG)


def define_source_flags(flag_values: flags.FlagValues, prefix: str = "") -> None:
    """Defines the flags that `source_flags` reads.

    Args:
      flag_values: the program's flags.
      prefix: of the flags' names, such as "valid_" where a program has two sources.
    """
    what = f"Source ({prefix.rstrip('_')})" if prefix else "Source"
    for name, text in (
        ("clips", f"{what}: CSV table of clips (file,labels, perhaps start,end)."),
        ("hdf5_tsv", f"{what}: TSV table of clips in HDF5 files."),
        ("tfds", f"{what}: a prepared TensorFlow data set, NAME:SPLIT."),
        ("folder", f"{what}: what files in its table are relative to; the table's own folder."),
        (
            "columns",
            f"{what}: what its CSV table calls the columns file and labels, or its data set the "
            "features audio and labels: FILE,LABELS.",
        ),
        ("where", f"{what}: only rows of its CSV table with COLUMN=VALUE,VALUE; all."),
        ("data_dir", f"{what}: where the TensorFlow data set is; the usual place."),
    ):
        flags.DEFINE_string(prefix + name, None, text, flag_values=flag_values)


def source_flags(flag_values: flags.FlagValues, prefix: str = "") -> dict[str, Any] | None:
    """What the flags say, as arguments of `open_source`; None where they name no source.

    Raises:
      flags.Error: they name several, or none but a folder, or a data set without a split, or say
        what has no meaning for it.
    """
    values = {name: flag_values[prefix + name].value for name in _SOURCE_FLAGS}
    given = [f"--{prefix}{name}" for name in _SOURCE_FLAGS if values[name]]
    sources = [name for name in _MAIN_FLAGS if values[name]]
    if not given:
        return None
    if len(sources) != 1:
        choices = ", ".join(f"--{prefix}{name}" for name in _MAIN_FLAGS)
        raise flags.Error(f"{' and '.join(given)}: give one of {choices}")
    for name, belong in _BELONG.items():
        if values[name] and sources[0] not in belong:
            raise flags.Error(
                f"--{prefix}{name} has no meaning with --{prefix}{sources[0]}, only with "
                f"{' and '.join(f'--{prefix}{each}' for each in belong)}"
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
    """Arguments of `open_source` that mean the same in every working folder."""
    paths = ("clips", "hdf5_tsv", "folder", "data_dir")
    places = {name: os.path.realpath(values[name]) for name in paths if values.get(name)}
    return {**values, **places}


def open_source(
    label_names: Sequence[str],
    *,
    clips: str | None = None,
    folder: str | None = None,
    columns: str | None = None,
    where: str | None = None,
    hdf5_tsv: str | None = None,
    tfds: str | None = None,
    data_dir: str | None = None,
    leave_out_missing: bool = False,
) -> Source:
    """Opens a source of labelled clips: one of `clips`, `hdf5_tsv` and `tfds`.

    Args:
      label_names: the model's class names in output order; empty where labels don't matter: then
        clips have none.
      clips: a CSV table, see `data_pipeline.sources.clips.read_clips`.
      folder: what the files in `clips` or `hdf5_tsv` are relative to; None is the table's folder.
      columns: what the table in `clips` calls its columns: FILE,LABELS; None is file,labels. Of
        `tfds`, its features with audio and labels; None finds them.
      where: which rows of that table count: COLUMN=VALUE,VALUE…; None is all.
      hdf5_tsv: a TSV table, see `data_pipeline.sources.hdf5.Hdf5Source`.
      tfds: NAME:SPLIT of a prepared TensorFlow data set.
      data_dir: where that was prepared; None is the usual place.
      leave_out_missing: whether clips whose file in `clips` is missing are left out, else they
        fail when they are read.

    Raises:
      SatError: the source can't be opened, does not fit the classes, or a library is missing.
    """
    if clips:
        from data_pipeline.sources.clips import read_clips
        from data_pipeline.sources.folder import FolderSource

        listed = read_clips(
            clips,
            label_names,
            folder=folder,
            columns=parse_columns(columns),
            where=parse_where(where),
        )
        return FolderSource(listed, leave_out_missing=leave_out_missing)
    if hdf5_tsv:
        with _needing("h5py"):
            from data_pipeline.sources.hdf5 import Hdf5Source
        return Hdf5Source(hdf5_tsv, num_classes=len(label_names), folder=folder)
    named = _TFDS.fullmatch(tfds or "")
    if named is None:
        raise SatError(f"tfds={tfds} is not NAME:SPLIT: name a data set and its split")
    with _needing("tensorflow-datasets"), _without_warnings():
        from data_pipeline.sources.tfds.source import TfdsSource

        audio, labels = parse_columns(columns) if columns else (None, None)
        source = TfdsSource(named["name"], named["split"], data_dir, audio=audio, labels=labels)
    if label_names:
        source.use_classes(label_names)
    return source


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
    """TFDS 4.9.10 warns of what its own code does."""
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
