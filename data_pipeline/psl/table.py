"""Pseudo strong labels of a source's clips, in memory."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_pipeline.psl.parquet_files import (
    SCHEMA,
    arrow_errors,
    read_batches,
    read_metadata,
    split_numbers,
)
from sat_jax.errors import SatError
from sat_jax.labels import class_fingerprint

_EXTENSION = r"(?i)\.(wav|flac|ogg|opus|mp3|m4a|mp4|webm|mkv|aac|aiff?|au|wma)$"


class PslTable(NamedTuple):
    """The w windows of n clips, as columns.

    Attributes:
      window_starts: int64 [n + 1]; clip i has rows window_starts[i] : window_starts[i + 1],
        ordered by start.
      start: float32 [w], seconds from the clip's start.
      end: float32 [w], seconds.
      indices: int32 [w, k], the strongest classes.
      probs: float32 [w, k], their probabilities; padded with class 0 of probability 0.
      unknown_clips: clips in the files that the source lacks.
    """

    window_starts: np.ndarray
    start: np.ndarray
    end: np.ndarray
    indices: np.ndarray
    probs: np.ndarray
    unknown_clips: int = 0

    @property
    def num_classes(self) -> int:
        """The number of classes that a model needs at least: the highest index plus 1."""
        return int(self.indices.max(initial=-1)) + 1

    def fingerprint(self) -> str:
        """Returns a short hash of all columns."""
        digest = hashlib.sha256()
        for column in self:
            digest.update(np.ascontiguousarray(column).data)
        return digest.hexdigest()[:16]

    def targets(self, rows: np.ndarray, num_classes: int) -> np.ndarray:
        """Returns dense soft targets of rows int [b]: float32 [b, y], 0 for all other classes.

        `num_classes` must be at least that of the table.
        """
        indices = self.indices[rows]
        target = np.zeros((len(rows), num_classes), np.float32)
        # The maximum keeps class 0 where it also stands as padding with probability 0.
        np.maximum.at(target, (np.arange(len(rows))[:, None], indices), self.probs[rows])
        return target


def read_psl(paths: Sequence[str | os.PathLike[str]], clip_ids: Sequence[str]) -> PslTable:
    """Reads the windows of a source's clips.

    A ``filename`` is matched to a clip by its full name, else by the name without extension, else
    by the name without folder and extension. A name that matches several clips matches none.

    Args:
      paths: Parquet files, or folders of them.
      clip_ids: names of the source's n clips.

    Returns:
      The table; k is the most classes of any window.

    Raises:
      SatError: a file can't be read or has another layout, a window occurs twice, or no clip has
        any.
    """
    files = _list_files(paths)
    clip, start, end, unknown_clips = _read_windows(files, clip_ids)
    known = np.flatnonzero(clip >= 0)
    if not len(known):
        raise SatError(
            f"{paths[0]} has no pseudo strong labels for any of the {len(clip_ids)} clips, such as "
            f"{clip_ids[0]}: make them for these clips"
        )
    order = known[np.lexsort((end[known], start[known], clip[known]))]
    row_of_line = np.full(len(clip), -1, np.int64)
    row_of_line[order] = np.arange(len(order))
    clip, start, end = clip[order], start[order], end[order]
    twice = np.flatnonzero((np.diff(clip) == 0) & (np.diff(start) == 0) & (np.diff(end) == 0))
    if len(twice):
        raise SatError(
            f"{paths[0]}: clip {clip_ids[clip[twice[0]]]} has the window from "
            f"{start[twice[0]]:g} s twice: name its labels once"
        )
    indices, probs = _read_classes(files, row_of_line, len(order))
    window_starts = np.searchsorted(clip, np.arange(len(clip_ids) + 1))
    return PslTable(window_starts, start, end, indices, probs, unknown_clips)


def check_classes(paths: Sequence[str | os.PathLike[str]], labels: Sequence[str]) -> None:
    """Checks that files are labelled with a model's classes, as far as their metadata says.

    Args:
      paths: as for `read_psl`.
      labels: the model's class names in output order.

    Raises:
      SatError: a file has other classes, or another order.
    """
    ours = class_fingerprint(labels)
    for path in _list_files(paths):
        if read_metadata(path).get("classes", ours) != ours:
            raise SatError(
                f"{path} was labelled with other classes than the model's, or in another order: "
                "use a teacher with the same classes"
            )


def _list_files(paths: Sequence[str | os.PathLike[str]]) -> list[Path]:
    files: list[Path] = []
    for path in map(Path, paths):
        found = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
        if not found:
            raise SatError(f"{path} has no .parquet files: name a folder of pseudo strong labels")
        files += found
    return files


def _read_windows(
    files: Sequence[Path], clip_ids: Sequence[str]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Returns clip (-1 if unknown), start, end of every line, and the number of unknown clips."""
    columns = ["filename", "start", "end"]
    batches = (batch for path in files for batch in read_batches(path, columns))
    lines = pa.Table.from_batches(batches, pa.schema([SCHEMA.field(name) for name in columns]))
    names = lines["filename"].dictionary_encode().combine_chunks()
    clip_of_name = _find_clips(names.dictionary, pa.array(clip_ids, pa.string()))
    clip = clip_of_name[names.indices.to_numpy()]
    start, end = (lines[name].to_numpy().astype(np.float32) for name in ("start", "end"))
    return clip, start, end, int((clip_of_name < 0).sum())


def _find_clips(names: pa.StringArray, ids: pa.StringArray) -> np.ndarray:
    """Returns the index of each name's clip, int64, or -1; see `read_psl`."""
    stems, id_stems = (pc.replace_substring_regex(each, _EXTENSION, "") for each in (names, ids))
    id_bases = pc.replace_substring_regex(id_stems, "^.*/", "")
    clips = np.full(len(names), -1, np.int64)
    for wanted, candidates in ((names, ids), (stems, id_stems), (stems, id_bases)):
        codes = candidates.dictionary_encode().indices.to_numpy()
        is_unique = np.bincount(codes, minlength=1)[codes] == 1
        unique = pc.if_else(pa.array(is_unique), candidates, None)
        found = pc.fill_null(pc.index_in(wanted, value_set=unique), -1).to_numpy()
        clips = np.where(clips < 0, found, clips)
    return clips


def _read_classes(
    files: Sequence[Path], row_of_line: np.ndarray, num_rows: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns indices int32 [w, k] and probabilities float32 [w, k]; skips lines of row -1."""
    indices, probs = np.zeros((num_rows, 0), np.int32), np.zeros((num_rows, 0), np.float32)
    line = 0
    for path in files:
        for batch in read_batches(path, ["prob", "idxs"]):
            rows = row_of_line[line : line + len(batch)]
            line += len(batch)
            batch, rows = batch.filter(pa.array(rows >= 0)), rows[rows >= 0]
            with arrow_errors(path):
                numbers, counts = split_numbers(batch["prob"], pa.float32())
                classes, class_counts = split_numbers(batch["idxs"], pa.int32())
            _check_classes(path, numbers, counts, classes, class_counts)
            k = counts.max(initial=0)
            indices, probs = _pad_columns(indices, k), _pad_columns(probs, k)
            row = np.repeat(rows, counts)
            column = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
            indices[row, column], probs[row, column] = classes, numbers
    return indices, probs


def _pad_columns(numbers: np.ndarray, k: int) -> np.ndarray:
    """Pads with zeros to at least k columns."""
    missing = k - numbers.shape[1]
    return np.pad(numbers, ((0, 0), (0, missing))) if missing > 0 else numbers


def _check_classes(
    path: Path,
    probs: np.ndarray,
    counts: np.ndarray,
    classes: np.ndarray,
    class_counts: np.ndarray,
) -> None:
    if not np.array_equal(counts, class_counts):
        raise SatError(f"{path}: a row has another number of probs than of idxs; make it again")
    wrong = [*probs[~((probs >= 0) & (probs <= 1))], *classes[classes < 0]]
    if wrong:
        raise SatError(
            f"{path}: {wrong[0]:g} is not a probability in 0 to 1, or not a class index; make it "
            "again"
        )
