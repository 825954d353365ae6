"""Names, labels and places of all clips of a TFDS dataset, found once and kept."""

import collections
import contextlib
import hashlib
import json
import os
import zipfile
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from etils import epath
from tqdm import tqdm

from data_pipeline.sources.source import ClipTable
from data_pipeline.sources.tfds.records import (
    BadRecord,
    Span,
    bytes_span,
    example_of,
    feature_spans,
)
from data_pipeline.sources.tfds.records import record_spans as spans_of_file
from sat_jax.errors import SatError
from sat_jax.runtime.files import cache_dir

_FORMAT = 1  # Counted up when the columns change.


class Part(NamedTuple):
    """Records of one file that belong to a split: `take` of them behind the first `skip`."""

    path: str
    skip: int
    take: int


class Places(NamedTuple):
    """Where n clips lie, as columns.

    Attributes:
      files: paths of the TFRecord files.
      file_of_clip: int32 [n], index into `files`.
      start: int64 [n], the first byte of a clip's example in its file.
      end: int64 [n], one past its last byte.
      audio: int64 [n], the first byte of its samples in the file, 2 bytes each; -1 where they are
        stored otherwise.
      num_samples: int64 [n], samples of a clip at its own rate.
    """

    files: Sequence[str]
    file_of_clip: np.ndarray
    start: np.ndarray
    end: np.ndarray
    audio: np.ndarray
    num_samples: np.ndarray


class Decoder(NamedTuple):
    """How to understand examples.

    Attributes:
      key: names whatever changes the results.
      audio: name of the feature with the samples.
      is_raw: whether that holds 16-bit samples as bytes.
      others: names of the features that `describe` needs.
      describe: id (None to make one up) and labels from a serialized example with `others`.
      count_samples: samples in a serialized example with the audio, if that is not raw.
    """

    key: str
    audio: str
    is_raw: bool
    others: Sequence[str]
    describe: Callable[[bytes], tuple[str | None, Sequence[int]]]
    count_samples: Callable[[bytes], int]


class _Row(NamedTuple):
    """A clip as it was found; its place has the columns of `Places`."""

    id: str
    labels: Sequence[int]
    place: tuple[int, int, int, int, int]


def find_clips(
    parts: Sequence[Part], decoder: Decoder, *, folder: str, name: str
) -> tuple[ClipTable, Places]:
    """Finds all clips, by one pass over the files the first time.

    What was found is kept in `folder`, or where that can't be written in the cache folder, for as
    long as the files keep their sizes and the times when they were written.

    Args:
      parts: which records, in order.
      decoder: how to understand them.
      folder: of the dataset.
      name: what the progress bar calls the dataset.

    Raises:
      SatError: there are no clips, a file is missing or damaged, or two clips have the same id.
    """
    if not sum(part.take for part in parts):
        raise SatError(f"{name} has no clips: choose another split, or a larger part of it")
    files = list(dict.fromkeys(part.path for part in parts))
    sizes, times = zip(*map(_size_and_time, files), strict=True)
    names = [os.path.basename(path) for path in files]
    key = json.dumps([_FORMAT, decoder.key, names, sizes, times, parts])
    digest = hashlib.sha256(key.encode()).hexdigest()[:16]
    kept = [base / f"clips_{digest}.npz" for base in _folders(folder)]
    for path in kept:
        if (found := _load(path, files)) is not None:
            return found
    rows = tqdm(
        _rows(parts, files, sizes, decoder),
        name,
        sum(part.take for part in parts),
        unit=" clips",
        disable=None,
    )
    found = _columns(rows, files)
    _save(kept, found)
    return found


def _size_and_time(path: str) -> tuple[int, int | None]:
    try:
        stat = epath.Path(path).stat()
        return stat.length, stat.mtime
    except OSError as error:
        raise SatError(f"{path} is missing from its dataset: prepare that again") from error


def _rows(
    parts: Sequence[Part], files: Sequence[str], sizes: Sequence[int], decoder: Decoder
) -> Iterator[_Row]:
    for path, skip, take in parts:
        number, base = files.index(path), os.path.basename(path)
        with epath.Path(path).open("rb") as file:
            seen = 0
            try:
                for seen, span in enumerate(spans_of_file(file, sizes[number]), 1):
                    if skip < seen <= skip + take:
                        yield _row(file, span, number, f"{base}__{seen - 1}", decoder)
            except BadRecord as error:
                raise SatError(f"{path} is damaged: {error}: prepare the dataset again") from error
        if seen < skip + take:
            raise SatError(f"{path} holds {seen} clips of {skip + take}: prepare the dataset again")


def _row(file: BinaryIO, span: Span, number: int, default_id: str, decoder: Decoder) -> _Row:
    entries = feature_spans(file, span)
    missing = {decoder.audio, *decoder.others} - entries.keys()
    # A feature without values may be left out.
    if decoder.audio in missing:
        raise BadRecord(f"the example at byte {span.start} has no feature {decoder.audio!r}")
    named = [entries[name] for name in decoder.others if name not in missing]
    clip_id, labels = decoder.describe(example_of(file, named))
    audio = bytes_span(file, entries[decoder.audio]) if decoder.is_raw else None
    if audio is not None:
        start, num_samples = audio.start, (audio.end - audio.start) // 2
    else:
        whole = example_of(file, [entries[decoder.audio]])
        start, num_samples = -1, decoder.count_samples(whole)
    return _Row(clip_id or default_id, labels, (number, *span, start, num_samples))


def _columns(rows: Iterable[_Row], files: Sequence[str]) -> tuple[ClipTable, Places]:
    # Two million rows would take a gigabyte as Python's objects.
    ids: list[str] = []
    label_starts, label_indices, places = array("q", [0]), array("i"), array("q")
    for row in rows:
        ids.append(row.id)
        label_indices.extend(sorted(row.labels))
        label_starts.append(len(label_indices))
        places.extend(row.place)
    if len(set(ids)) < len(ids):
        name, count = collections.Counter(ids).most_common(1)[0]
        raise SatError(
            f"{count} clips are called {name!r}: prepare it with a feature 'id' that tells "
            "them apart"
        )
    table = ClipTable(ids, np.asarray(label_starts), np.asarray(label_indices))
    file_of_clip, *others = np.asarray(places).reshape(len(ids), -1).T.copy()
    return table, Places(files, file_of_clip.astype(np.int32), *others)


def _folders(folder: str) -> list[Path]:
    """Where to look for what was found, and to keep it: the first that is writable."""
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
            os.replace(part, path)  # Whoever else looks sees all of it or nothing.
            return
        except OSError:  # Where nothing can be written, it is found anew each time.
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
