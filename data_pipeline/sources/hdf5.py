"""Clips in HDF5 files with a table (TSV) beside them, the published layout.

filename	labels	duration	hdf5path
a_0_10.wav	0;137	10.0	balanced.h5

Each HDF5 file holds an int16 array a clip, mono at 16 kHz, whose key is the clip's file name.
"""

import collections
import csv
import os
import threading
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np

from data_pipeline.sources.bounds import window_bounds
from data_pipeline.sources.source import ClipTable
from sat_jax.errors import SatError

COLUMNS = ("filename", "labels", "hdf5path")
_MAX_OPEN_FILES = 32
_INT16_SCALE = np.float32(1 / 32_768)


class Hdf5Source:
    """Clips of any number of HDF5 files; those in use are kept open."""

    def __init__(
        self,
        table: str | os.PathLike[str],
        *,
        num_classes: int,
        folder: str | os.PathLike[str] | None = None,
    ) -> None:
        """Reads the table.

        Args:
          table: a UTF-8 file whose first line names the columns, which tabs part: ``filename``,
            ``labels`` (indices joined by ``;``, perhaps none) and ``hdf5path``; others are passed
            over.
          num_classes: classes of the model; with 0, where labels don't matter, they are passed
            over and clips have none.
          folder: what HDF5 paths are relative to; None is the table's own folder.

        Raises:
          SatError: the table can't be read, lacks a column, has no rows, lists a clip twice, has a
            label that is none of the classes, or names an HDF5 file that is missing.
        """
        base = Path(table).parent if folder is None else Path(folder)
        rows = _read_rows(os.fspath(table), num_classes)
        self._paths = [base / name for name in rows.files]
        self._file_of_clip = np.asarray(rows.file_of_clip)
        self._table = ClipTable(
            rows.ids, np.asarray(rows.label_starts), np.asarray(rows.label_indices)
        )
        for path in self._paths:
            if not path.is_file():
                raise SatError(
                    f"{table} names {path}, which is missing: name the folder that its HDF5 files "
                    "are relative to"
                )
        # HDF5 reads for one thread at a time anyway.
        self._lock = threading.Lock()
        self._open_files: collections.OrderedDict[int, h5py.File] = collections.OrderedDict()

    @property
    def clips(self) -> ClipTable:
        """Names and labels of all clips, in the table's order."""
        return self._table

    def path_of(self, index: int) -> str:
        """The HDF5 file that a clip is in."""
        return str(self._paths[int(self._file_of_clip[index])])

    def read(
        self,
        index: int,
        *,
        num_samples: int | None = None,
        place: float = 0.0,
        start: float | None = None,
    ) -> np.ndarray:
        """Reads a window of a clip, see `data_pipeline.sources.source.Source.read`."""
        key, file = self._table.ids[index], int(self._file_of_clip[index])
        name = f"{self._paths[file]}, {key}"
        try:
            with self._lock:
                samples = _samples(self._open(file), key, name)
                first, last = window_bounds(
                    len(samples), num_samples=num_samples, place=place, start=start, name=name
                )
                window = samples[first:last]
        except OSError as error:
            raise SatError(f"{name}: cannot be read: {_first_line(error)}") from error
        return window.astype(np.float32) * _INT16_SCALE

    def _open(self, file: int) -> h5py.File:
        if file not in self._open_files:
            if len(self._open_files) == _MAX_OPEN_FILES:
                self._open_files.popitem(last=False)[1].close()
            # Nobody writes these, and some network file systems know no locks.
            self._open_files[file] = h5py.File(self._paths[file], "r", locking=False)
        self._open_files.move_to_end(file)
        return self._open_files[file]


def _samples(file: h5py.File, key: str, name: str) -> h5py.Dataset:
    samples = file.get(key)
    if not isinstance(samples, h5py.Dataset):
        raise SatError(f"{name}: no such clip in the file: mend the table, or make the file anew")
    if samples.dtype != np.int16 or samples.ndim != 1:
        raise SatError(
            f"{name}: is {samples.dtype} of shape {list(samples.shape)}: needed are int16 samples, "
            "mono at 16 kHz"
        )
    return samples


def _first_line(error: OSError) -> str:
    return " ".join(str(error).split()) or type(error).__name__


class _Rows(NamedTuple):
    """The table in columns; two million Python lists of labels would take a gigabyte."""

    ids: list[str]
    file_of_clip: "array[int]"
    files: list[str]
    label_starts: "array[int]"
    label_indices: "array[int]"


def _read_rows(table: str, num_classes: int) -> _Rows:
    rows = _Rows([], array("i"), [], array("q", [0]), array("i"))
    places: dict[str, int] = {}
    for line, (name, labels, file) in _lines(table):
        if not name or not file:
            raise SatError(f"{table}, line {line}: needs a filename and an hdf5path")
        if file not in places:
            places[file] = len(rows.files)
            rows.files.append(file)
        rows.ids.append(name)
        rows.file_of_clip.append(places[file])
        rows.label_indices.extend(_indices(labels, num_classes, f"{table}, line {line}"))
        rows.label_starts.append(len(rows.label_indices))
    if not rows.ids:
        raise SatError(f"{table} lists no clips: give one row a clip below the header")
    if len(set(rows.ids)) < len(rows.ids):
        name, count = collections.Counter(rows.ids).most_common(1)[0]
        raise SatError(f"{table} lists {name} {count} times: keep one of its rows")
    return rows


def _lines(table: str) -> Iterator[tuple[int, Sequence[str]]]:
    """Line numbers, and the fields of `COLUMNS` in each line."""
    try:
        with open(table, encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter="\t")
            header = next(reader, [])
            for column in COLUMNS:
                if column not in header:
                    raise SatError(
                        f"{table} has no column {column!r}: its first line must name "
                        f"{', '.join(COLUMNS)}, with tabs between them"
                    )
            wanted = [header.index(column) for column in COLUMNS]
            for fields in reader:
                if len(fields) > max(wanted):
                    yield reader.line_num, [fields[place] for place in wanted]
                elif fields:
                    raise SatError(f"{table}, line {reader.line_num}: has too few fields")
    except OSError as error:
        raise SatError(f"cannot read {table}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise SatError(f"{table} is no text in UTF-8: save it as a TSV file in UTF-8") from error
    except csv.Error as error:
        raise SatError(f"{table}, line {reader.line_num}: {error}: mend it") from error


def _indices(labels: str, num_classes: int, where: str) -> list[int]:
    if not num_classes:
        return []
    try:
        indices = sorted({int(part) for part in labels.split(";") if part.strip()})
    except ValueError:
        raise SatError(f"{where}: labels={labels!r} are no indices joined by ;") from None
    if indices and not 0 <= indices[0] <= indices[-1] < num_classes:
        raise SatError(
            f"{where}: labels={labels!r} are not all among the model's classes 0 to "
            f"{num_classes - 1}"
        )
    return indices
