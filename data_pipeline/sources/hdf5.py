"""Clips in HDF5 files, listed by a table (TSV): AudioSet's published layout.

filename	labels	duration	hdf5path
a_0_10.wav	0;137	10.0	balanced.h5

Each HDF5 file holds one int16 array per clip, mono at 16 kHz; its key is the clip's file name.
"""

import collections
import os
import threading
from array import array
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np

from data_pipeline.sources.source import INT16_SCALE, ClipTable, window_bounds
from data_pipeline.sources.tables import read_rows
from sat_jax.errors import SatError

COLUMNS = ("filename", "labels", "hdf5path")
_MAX_OPEN_FILES = 32


class Hdf5Source:
    """Clips in any number of HDF5 files; recently used files stay open.

    Attributes:
      clips: names and labels, in the table's order.
    """

    def __init__(
        self,
        table: str | os.PathLike[str],
        *,
        num_classes: int,
        folder: str | os.PathLike[str] | None = None,
    ) -> None:
        """Reads the table.

        Args:
          table: a UTF-8 file with tabs between columns. Its first line names ``filename``,
            ``labels`` (indices joined by ``;``, may be empty) and ``hdf5path``; other columns are
            ignored.
          num_classes: the model's classes; 0 ignores labels.
          folder: folder that HDF5 paths are relative to; None is the table's folder.

        Raises:
          SatError: the table can't be read, lacks a column, has no rows, lists a clip twice, has a
            label that the model lacks, or names an HDF5 file that is missing.
        """
        base = Path(table).parent if folder is None else Path(folder)
        rows = _read_columns(os.fspath(table), num_classes)
        self._paths = [base / name for name in rows.files]
        self._file_of_clip = np.asarray(rows.file_of_clip)
        self.clips = ClipTable(
            rows.ids, np.asarray(rows.label_starts), np.asarray(rows.label_indices)
        )
        for path in self._paths:
            if not os.path.isfile(path):
                raise SatError(f"{table}: {path} is missing: give its folder by --folder")
        # The HDF5 library reads for one thread at a time anyway.
        self._lock = threading.Lock()
        self._open_files: collections.OrderedDict[int, h5py.File] = collections.OrderedDict()

    def path_of(self, index: int) -> str:
        """Returns the HDF5 file of a clip."""
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
        key, file = self.clips.ids[index], int(self._file_of_clip[index])
        name = f"{self._paths[file]}, {key}"
        try:
            with self._lock:
                samples = _samples(self._open(file), key, name)
                first, last = window_bounds(
                    len(samples), num_samples=num_samples, place=place, start=start, name=name
                )
                window = samples[first:last]
        except OSError as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise SatError(f"{name}: cannot read: {reason}") from error
        return window.astype(np.float32) * INT16_SCALE

    def _open(self, file: int) -> h5py.File:
        if file not in self._open_files:
            if len(self._open_files) == _MAX_OPEN_FILES:
                self._open_files.popitem(last=False)[1].close()
            # Nobody writes these files, and some network file systems have no locks.
            self._open_files[file] = h5py.File(self._paths[file], "r", locking=False)
        self._open_files.move_to_end(file)
        return self._open_files[file]


def _samples(file: h5py.File, key: str, name: str) -> h5py.Dataset:
    samples = file.get(key)
    if not isinstance(samples, h5py.Dataset):
        raise SatError(f"{name}: not in the file: correct the table, or write the file again")
    if samples.dtype != np.int16 or samples.ndim != 1:
        raise SatError(
            f"{name}: {samples.dtype} of shape {list(samples.shape)}: store int16 samples, mono at "
            "16 kHz"
        )
    return samples


class _Rows(NamedTuple):
    """The table as columns; two million Python lists of labels would take a gigabyte."""

    ids: list[str]
    file_of_clip: "array[int]"
    files: list[str]
    label_starts: "array[int]"
    label_indices: "array[int]"


def _read_columns(table: str, num_classes: int) -> _Rows:
    rows = _Rows([], array("i"), [], array("q", [0]), array("i"))
    file_indices: dict[str, int] = {}
    for line, (name, labels, file) in read_rows(table, COLUMNS, delimiter="\t", allow_extra=True):
        where = f"{table}, line {line}"
        if not name or labels is None or not file:
            raise SatError(f"{where}: a field is missing: fill filename and hdf5path")
        if file not in file_indices:
            file_indices[file] = len(rows.files)
            rows.files.append(file)
        rows.ids.append(name)
        rows.file_of_clip.append(file_indices[file])
        rows.label_indices.extend(_parse_labels(labels, num_classes, where))
        rows.label_starts.append(len(rows.label_indices))
    if not rows.ids:
        raise SatError(f"{table}: lists no clips: add a row per clip below the header")
    if len(set(rows.ids)) < len(rows.ids):
        name, count = collections.Counter(rows.ids).most_common(1)[0]
        raise SatError(f"{table}: lists {name} {count} times: keep one of its rows")
    return rows


def _parse_labels(labels: str, num_classes: int, where: str) -> list[int]:
    if not num_classes:
        return []
    try:
        indices = sorted({int(part) for part in labels.split(";") if part.strip()})
    except ValueError:
        raise SatError(f"{where}: labels={labels!r} is not a list of indices joined by ;") from None
    if indices and not 0 <= indices[0] <= indices[-1] < num_classes:
        raise SatError(
            f"{where}: labels={labels!r} has an index outside the model's 0 to {num_classes - 1}"
        )
    return indices
