"""Files of pseudo strong labels (Parquet), in columns: their layout, writing and reading.

The published layout has a row a window: filename (a_0_10.wav), start and end (seconds within the
clip), prob and idxs (the strongest classes' probabilities and indices, joined by ``;``).
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
_ABOUT = b"sat_jax"
_ROWS_PER_BATCH = 1 << 16


def top_classes(probs: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The strongest classes of windows, strongest first; of equals, the lower index first.

    Args:
      probs: float32 [w, y].
      k: how many; more than there are classes means all.

    Returns:
      Their indices int32 [w, k], and probabilities float32 [w, k].
    """
    order = np.argsort(-probs, axis=1, kind="stable")[:, :k]
    return order.astype(np.int32), np.take_along_axis(probs, order, axis=1)


class PslWriter(contextlib.AbstractContextManager["PslWriter"]):
    """Writes a file in the published layout, some windows at a time."""

    def __init__(self, path: str | os.PathLike[str], about: Mapping[str, object]) -> None:
        """Opens the file; one that is there is overwritten.

        Args:
          path: the file.
          about: JSON-ready data, kept in the file; see `read_about`.
        """
        schema = SCHEMA.with_metadata({_ABOUT: json.dumps(dict(about))})
        self._writer = pq.ParquetWriter(path, schema, compression="zstd")

    def write(
        self,
        names: Sequence[str],
        start: np.ndarray,
        end: np.ndarray,
        indices: np.ndarray,
        probs: np.ndarray,
    ) -> None:
        """Adds w windows.

        Args:
          names: w names of clips; a clip's windows stand together.
          start: [w] seconds.
          end: [w] seconds.
          indices: int [w, k], classes.
          probs: float32 [w, k], written so that they read back as the same numbers.
        """
        columns = [names, start, end, _join(probs), _join(indices)]
        table = pa.table(dict(zip(SCHEMA.names, columns, strict=True)), self._writer.schema)
        self._writer.write_table(table)

    def __exit__(self, *_: object) -> None:
        """Completes the file."""
        self._writer.close()


def read_about(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What `PslWriter` was told of the labels; nothing if other programs wrote the file.

    Raises:
      SatError: the file can't be read.
    """
    with explaining_errors(path):
        metadata = pq.read_schema(path).metadata or {}
    return json.loads(metadata.get(_ABOUT, b"{}"))


def read_names(path: str | os.PathLike[str]) -> Sequence[str]:
    """The names of clips that a file has windows of, each once.

    Raises:
      SatError: the file can't be read or is not in this layout.
    """
    return list(
        {name for batch in read_batches(path, ["filename"]) for name in batch[0].to_pylist()}
    )


def read_batches(path: str | os.PathLike[str], columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Reads some columns of a file, a part of its rows at a time.

    Args:
      path: the file.
      columns: names in `SCHEMA`.

    Yields:
      The columns in this order, as the types in `SCHEMA`, without gaps.

    Raises:
      SatError: the file can't be read or is not in this layout.
    """
    schema = pa.schema([SCHEMA.field(column) for column in columns])
    with explaining_errors(path), pq.ParquetFile(path) as file:
        for column in columns:
            if column not in file.schema_arrow.names:
                needed = ", ".join(SCHEMA.names)
                raise SatError(f"{path} has no column {column!r}: needed are {needed}")
        for batch in file.iter_batches(_ROWS_PER_BATCH, columns=columns):
            for column in columns:
                if batch[column].null_count:
                    raise SatError(f"{path}: column {column!r} has gaps: make the file anew")
            yield batch.select(columns).cast(schema)


@contextlib.contextmanager
def explaining_errors(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turns what Arrow has against a file into a message for its user."""
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise SatError(f"{path}: no readable pseudo strong labels: {reason}") from error


def split_numbers(texts: pa.Array, kind: pa.DataType) -> tuple[np.ndarray, np.ndarray]:
    """The numbers in ;-joined texts, all in one array, and how many there are in each."""
    lists = pc.split_pattern(texts.cast(pa.string()), ";")
    numbers = pc.utf8_trim_whitespace(pc.list_flatten(lists)).cast(kind)
    counts = pc.fill_null(pc.list_value_length(lists), 0)
    return numbers.to_numpy(zero_copy_only=False), counts.to_numpy(zero_copy_only=False)


def _join(numbers: np.ndarray) -> list[str]:
    return [";".join(row) for row in numbers.astype(str).tolist()]
