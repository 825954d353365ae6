"""The tables that tagging an archive writes: Parquet files, one of each kind per part."""

import dataclasses
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sat_jax.archive.storage import upload
from sat_jax.streaming.scored_chunk import ScoredChunk
from sat_jax.tags import Tag

_TIMES = [("recording", pa.string()), ("start", pa.float64()), ("end", pa.float64())]
TAGS = pa.schema([*_TIMES, ("label", pa.string()), ("id", pa.string()), ("prob", pa.float32())])
FAILURES = pa.schema([("recording", pa.string()), ("error", pa.string())])
_COUNTS_KEY = b"sat_jax"


def vector_schema(name: str, size: int) -> pa.Schema:
    """Returns the schema of a table with a vector of `size` float32 per chunk."""
    return pa.schema([*_TIMES, (name, pa.list_(pa.float32(), size))])


@dataclasses.dataclass(frozen=True)
class Counts:
    """What was tagged.

    Attributes:
      recordings: recordings tried.
      failed: those that could not be read to their end.
      seconds: seconds of sound tagged.
    """

    recordings: int = 0
    failed: int = 0
    seconds: float = 0.0

    def __add__(self, other: "Counts") -> "Counts":
        """Adds up."""
        return Counts(
            self.recordings + other.recordings,
            self.failed + other.failed,
            self.seconds + other.seconds,
        )

    def to_json(self) -> bytes:
        """Returns the counts as JSON."""
        return json.dumps(dataclasses.asdict(self)).encode()

    @staticmethod
    def from_json(text: bytes) -> "Counts":
        """Returns the counts from `to_json`."""
        return Counts(**json.loads(text))


def part_path(output: str, table: str, part: int) -> str:
    """Returns the file of a part of a table."""
    return f"{output}/{table}/part-{part:06d}.parquet"


def read_counts(failures: bytes) -> Counts:
    """Returns the counts of a part from its table of failures."""
    return Counts.from_json(pq.read_schema(io.BytesIO(failures)).metadata[_COUNTS_KEY])


class PartTables:
    """Collects the rows of a part in a local folder, and uploads them when it is complete."""

    def __init__(self, folder: Path, vectors: Mapping[str, int]) -> None:
        """Opens the tables.

        Args:
          folder: an empty local folder.
          vectors: the tables with a vector per chunk, and its length: {"scores": 527} and the
            like for "embeddings".
        """
        self._folder = folder
        schemas = {"tags": TAGS}
        schemas |= {name: vector_schema(name, size) for name, size in vectors.items()}
        self._writers = {
            name: pq.ParquetWriter(folder / name, schema, compression="zstd")
            for name, schema in schemas.items()
        }
        self._failures: list[dict[str, str]] = []
        self._counts = Counts()

    def add(
        self, recording: str, chunks: Sequence[ScoredChunk], tags: Sequence[Sequence[Tag]]
    ) -> None:
        """Appends chunks of a recording.

        Args:
          recording: its name.
          chunks: at least one.
          tags: of each chunk.
        """
        tagged = [
            (recording, chunk.start, chunk.end, tag.label, tag.mid or None, tag.prob)
            for chunk, row in zip(chunks, tags, strict=True)
            for tag in row
        ]
        columns = [list(column) for column in zip(*tagged, strict=True)] or [[] for _ in TAGS]
        self._writers["tags"].write_table(pa.table(columns, schema=TAGS))
        times = [[recording] * len(chunks), [c.start for c in chunks], [c.end for c in chunks]]
        if "scores" in self._writers:
            self._write_vectors("scores", times, np.stack([chunk.probs for chunk in chunks]))
        if "embeddings" in self._writers:
            embeddings = np.array([chunk.embedding for chunk in chunks], np.float32)
            self._write_vectors("embeddings", times, embeddings)

    def _write_vectors(self, name: str, times: Sequence[Any], rows: np.ndarray) -> None:
        writer = self._writers[name]
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), rows.shape[1])
        writer.write_table(pa.table([*times, vectors], schema=writer.schema))

    def finish(self, recording: str, seconds: float, error: str | None) -> None:
        """Counts a recording, and lists it among the failures if there was an error."""
        self._counts += Counts(1, error is not None, seconds)
        if error is not None:
            self._failures.append({"recording": recording, "error": error})

    def upload(self, output: str, part: int) -> Counts:
        """Uploads all tables; the table of failures is last, and marks the part as done."""
        for name, writer in self._writers.items():
            writer.close()
            upload(self._folder / name, part_path(output, name, part))
        schema = FAILURES.with_metadata({_COUNTS_KEY: self._counts.to_json()})
        table = pa.Table.from_pylist(self._failures, schema=schema)
        pq.write_table(table, self._folder / "failures", compression="zstd")
        upload(self._folder / "failures", part_path(output, "failures", part))
        return self._counts
