"""Names, labels and places of all clips of a TFDS dataset: found once, then cached in a file."""

import collections
import contextlib
import hashlib
import json
import os
import zipfile
from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from data_pipeline.sources.source import ClipTable
from data_pipeline.sources.tfds.features import ClipFeatures
from data_pipeline.sources.tfds.records import (
    BadRecord,
    Span,
    bytes_span,
    example_of,
    feature_spans,
    record_spans,
)
from sat_jax.errors import SatError
from sat_jax.runtime.files import cache_dir

_FORMAT = 1  # Increase it when the columns change.


class Part(NamedTuple):
    """Records of one file that belong to a split: `take` of them after the first `skip`."""

    path: str
    skip: int
    take: int


class Places(NamedTuple):
    """Where n clips lie, as columns.

    Attributes:
      files: paths of the TFRecord files.
      file_of_clip: int32 [n], index into `files`.
      start: int64 [n], first byte of the clip's example in its file.
      end: int64 [n], one past its last byte.
      audio: int64 [n], first byte of the clip's samples in its file, 2 bytes each; -1 if they are
        not stored as bytes.
      num_samples: int64 [n], samples in the clip at its own rate.
    """

    files: Sequence[str]
    file_of_clip: np.ndarray
    start: np.ndarray
    end: np.ndarray
    audio: np.ndarray
    num_samples: np.ndarray


class _Row(NamedTuple):
    """One clip; `place` has the columns of `Places`."""

    id: str
    labels: Sequence[int]
    place: tuple[int, int, int, int, int]


def open_file(path: str, *, buffering: int = -1) -> Any:
    """Opens a file for reading: a local one, or a remote one (such as gs://) by TensorFlow.

    Args:
      path: the file.
      buffering: of local files, see `open`.

    Raises:
      OSError: a local file can't be opened.
      tf.errors.OpError: the same for a remote file, perhaps at the first read.
    """
    return tf.io.gfile.GFile(path, "rb") if "://" in path else open(path, "rb", buffering)


def read_bytes(path: str, start: int, size: int) -> bytes:
    """Reads `size` bytes of a local or remote file.

    Raises:
      SatError: the file can't be read, or ends before.
    """
    try:
        with open_file(path, buffering=0) as file:
            file.seek(start)
            data: bytes = file.read(size)
    except (OSError, tf.errors.OpError) as error:
        raise SatError(f"{path}: cannot read: {error}") from error
    if len(data) < size:
        raise SatError(f"{path}: ends at byte {start + len(data)}: prepare it again")
    return data


def _size_and_time(path: str) -> tuple[int, int]:
    """Returns the size of a local or remote file in bytes, and its modification time in seconds.

    Raises:
      SatError: the file is missing.
    """
    try:
        stat = tf.io.gfile.stat(path)
    except tf.errors.OpError as error:
        raise SatError(f"{path} is missing: prepare its dataset again") from error
    return stat.length, stat.mtime_nsec // 1_000_000_000


def split_parts(builder: Any, split: str) -> list[Part]:
    """Returns the records of a split of a TFDS builder.

    Raises:
      SatError: the dataset has no such split.
    """
    try:
        instructions = builder.info.splits[split].file_instructions
    except (KeyError, ValueError, AssertionError) as error:
        raise SatError(
            f"{builder.name} has no split {split!r}: give one of {', '.join(builder.info.splits)}"
        ) from error
    return [Part(os.fspath(part.filename), part.skip, part.take) for part in instructions]


def find_clips(
    parts: Sequence[Part], features: ClipFeatures, *, folder: str, name: str
) -> tuple[ClipTable, Places]:
    """Finds all clips of some records.

    The first time it scans the files. The result is cached in `folder`, or in the cache folder if
    `folder` is read-only, until a file's size or modification time changes.

    Args:
      parts: the records, in order.
      features: of their examples.
      folder: of the dataset.
      name: of the dataset, for messages and the progress bar.

    Raises:
      SatError: there are no clips, a file is missing or damaged, or two clips have the same id.
    """
    total = sum(part.take for part in parts)
    if not total:
        raise SatError(f"{name} has no clips: choose another split, or a larger part of it")
    files = list(dict.fromkeys(part.path for part in parts))
    sizes, times = zip(*map(_size_and_time, files), strict=True)
    names = [os.path.basename(path) for path in files]
    used = f"{features.audio} {features.labels} {features.ids}"
    key = json.dumps([_FORMAT, used, names, sizes, times, parts])
    digest = hashlib.sha256(key.encode()).hexdigest()[:16]
    caches = [base / f"clips_{digest}.npz" for base in _cache_folders(folder)]
    for path in caches:
        if (found := _load(path, files)) is not None:
            return found
    rows = tqdm(_scan(parts, files, sizes, features), name, total, unit=" clips", disable=None)
    found = _to_columns(rows, files)
    _save(caches, found)
    return found


def _scan(
    parts: Sequence[Part], files: Sequence[str], sizes: Sequence[int], features: ClipFeatures
) -> Iterator[_Row]:
    for path, skip, take in parts:
        file_index, base = files.index(path), os.path.basename(path)
        with open_file(path) as file:
            seen = 0
            try:
                for seen, span in enumerate(record_spans(file, sizes[file_index]), 1):
                    if skip < seen <= skip + take:
                        yield _read_row(file, span, file_index, f"{base}__{seen - 1}", features)
            except BadRecord as error:
                raise SatError(f"{path} is damaged: {error}: prepare the dataset again") from error
        if seen < skip + take:
            raise SatError(
                f"{path} has {seen} clips instead of {skip + take}: prepare the dataset again"
            )


def _read_row(
    file: BinaryIO, span: Span, file_index: int, default_id: str, features: ClipFeatures
) -> _Row:
    """Reads the needed features of one example; not the samples, if they are stored as bytes."""
    entries = feature_spans(file, span)
    if features.audio not in entries:
        raise BadRecord(f"the example at byte {span.start} has no feature {features.audio!r}")
    # A feature without values may be absent.
    described = [name for name in (features.labels, features.ids) if name in entries]
    clip_id, labels = features.describe(
        example_of(file, [entries[name] for name in described if name is not None])
    )
    entry = entries[features.audio]
    audio = bytes_span(file, entry) if features.is_raw else None
    if audio is not None:
        start, num_samples = audio.start, (audio.end - audio.start) // 2
    else:
        start, num_samples = -1, len(features.samples(example_of(file, [entry])))
    return _Row(clip_id or default_id, labels, (file_index, *span, start, num_samples))


def _to_columns(rows: Iterable[_Row], files: Sequence[str]) -> tuple[ClipTable, Places]:
    # Two million rows as Python objects would take a gigabyte.
    ids: list[str] = []
    label_starts, label_indices, places = array("q", [0]), array("i"), array("q")
    for row in rows:
        ids.append(row.id)
        label_indices.extend(sorted(row.labels))
        label_starts.append(len(label_indices))
        places.extend(row.place)
    if len(set(ids)) < len(ids):
        name, count = collections.Counter(ids).most_common(1)[0]
        raise SatError(f"{count} clips have the id {name!r}: prepare it with unique ids")
    table = ClipTable(ids, np.asarray(label_starts), np.asarray(label_indices))
    file_of_clip, *others = np.asarray(places).reshape(len(ids), -1).T.copy()
    return table, Places(files, file_of_clip.astype(np.int32), *others)


def _cache_folders(folder: str) -> list[Path]:
    """Returns the folders for the cached file, the preferred one first."""
    beside = [] if "://" in folder else [Path(folder)]
    return [*beside, cache_dir() / "tfds"]


def _load(path: Path, files: Sequence[str]) -> tuple[ClipTable, Places] | None:
    try:
        with np.load(path, allow_pickle=False) as kept:
            columns = {name: kept[name] for name in kept.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        return None
    ids = [name.decode() for name in columns.pop("ids").tolist()]
    table = ClipTable(ids, columns.pop("label_starts"), columns.pop("label_indices"))
    return table, Places(files, **columns)


def _save(paths: Sequence[Path], found: tuple[ClipTable, Places]) -> None:
    """Writes the first path that can be written, if any."""
    table, places = found
    columns = {
        "ids": np.array([name.encode() for name in table.ids]),
        "label_starts": table.label_starts,
        "label_indices": table.label_indices,
        **{name: column for name, column in places._asdict().items() if name != "files"},
    }
    for path in paths:
        part = path.with_suffix(f".{os.getpid()}.part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with part.open("wb") as file:
                np.savez(file, **columns)
            os.replace(part, path)  # Other processes see a complete file or none.
            return
        except OSError:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
