"""Reads and writes Parquet files of pseudo strong labels.

The published layout has one row per window: filename (a_0_10.wav), start and end (seconds within
the clip), prob and idxs (probabilities and indices of the strongest classes, joined by ``;``).
"""

import contextlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sat_jax.errors import SatError

SCHEMA = pa.schema(
    [
        ("filename", pa.string()),
        ("start", pa.float64()),
        ("end", pa.float64()),
        ("prob", pa.string()),
        ("idxs", pa.string()),
    ]
)
_METADATA_KEY = b"sat_jax"
_ROWS_PER_BATCH = 1 << 16


class PslWriter(contextlib.AbstractContextManager["PslWriter"]):
    """Writes one file, some windows at a time."""

    def __init__(self, path: str | os.PathLike[str], metadata: Mapping[str, object]) -> None:
        """Opens the file; overwrites one that exists.

        Args:
          path: the file.
          metadata: JSON-ready data about the labels, which `read_metadata` returns.
        """
        schema = SCHEMA.with_metadata({_METADATA_KEY: json.dumps(dict(metadata))})
        self._writer = pq.ParquetWriter(path, schema, compression="zstd")

    def write(
        self,
        names: Sequence[str],
        start: np.ndarray,
        end: np.ndarray,
        indices: np.ndarray,
        probs: np.ndarray,
    ) -> None:
        """Appends w windows.

        Args:
          names: w clip names; the windows of one clip follow each other.
          start: [w] seconds.
          end: [w] seconds.
          indices: int [w, k], classes.
          probs: float32 [w, k]; they read back as the same numbers.
        """
        columns = [names, start, end, _join(probs), _join(indices)]
        table = pa.table(dict(zip(SCHEMA.names, columns, strict=True)), self._writer.schema)
        self._writer.write_table(table)

    def __exit__(self, *_: object) -> None:
        """Completes the file."""
        self._writer.close()


def read_metadata(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Returns the metadata that `PslWriter` stored; {} for files of other programs.

    Raises:
      SatError: the file can't be read.
    """
    with arrow_errors(path):
        metadata = pq.read_schema(path).metadata or {}
    return json.loads(metadata.get(_METADATA_KEY, b"{}"))


def read_clip_names(path: str | os.PathLike[str]) -> set[str]:
    """Returns the names of the clips in a file.

    Raises:
      SatError: the file can't be read or has another layout.
    """
    return {name for batch in read_batches(path, ["filename"]) for name in batch[0].to_pylist()}


def read_batches(path: str | os.PathLike[str], columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Reads columns of a file in batches of rows.

    Args:
      path: the file.
      columns: names in `SCHEMA`.

    Yields:
      The columns in this order, with the types of `SCHEMA` and without nulls.

    Raises:
      SatError: the file can't be read or has another layout.
    """
    schema = pa.schema([SCHEMA.field(column) for column in columns])
    with arrow_errors(path), pq.ParquetFile(path) as file:
        for column in columns:
            if column not in file.schema_arrow.names:
                needed = ", ".join(SCHEMA.names)
                raise SatError(f"{path} has no column {column!r}; it needs {needed}")
        for batch in file.iter_batches(_ROWS_PER_BATCH, columns=columns):
            for column in columns:
                if batch[column].null_count:
                    raise SatError(f"{path}: column {column!r} has nulls; write the file again")
            yield batch.select(columns).cast(schema)


@contextlib.contextmanager
def arrow_errors(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turns Arrow's errors about a file into a `SatError` of one line."""
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise SatError(f"cannot read pseudo strong labels from {path}: {reason}") from error


def split_numbers(texts: pa.Array, kind: pa.DataType) -> tuple[np.ndarray, np.ndarray]:
    """Parses texts of numbers joined by ``;``.

    Returns:
      All numbers in one array, and how many each text has.
    """
    lists = pc.split_pattern(texts.cast(pa.string()), ";")
    numbers = pc.utf8_trim_whitespace(pc.list_flatten(lists)).cast(kind)
    counts = pc.fill_null(pc.list_value_length(lists), 0)
    return numbers.to_numpy(zero_copy_only=False), counts.to_numpy(zero_copy_only=False)


def _join(numbers: np.ndarray) -> list[str]:
    return [";".join(row) for row in numbers.astype(str).tolist()]
