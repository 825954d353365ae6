"""Which recordings an archive has, and how they are cut into parts of work."""

import dataclasses
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sat_jax.archive.storage import exists, find, read_bytes, write_bytes
from sat_jax.errors import SatError

_SCHEMA = pa.schema([("part", pa.int32()), ("file", pa.string())])
_SETTINGS_KEY = b"sat_jax"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """The parts of an archive.

    Attributes:
      settings: JSON-ready data that changes the results, such as the model and `k`.
      parts: the files of each part; audio files, or one tar file of audio files.
    """

    settings: Mapping[str, Any]
    parts: Sequence[Sequence[str]]

    def __len__(self) -> int:
        """Returns the number of parts."""
        return len(self.parts)


def plan_archive(
    output: str, patterns: Sequence[str], settings: Mapping[str, Any], *, files_per_part: int
) -> Plan:
    """Lists the files of an archive and cuts them into parts, or adds new files to an older plan.

    The plan is OUTPUT/plan.parquet, and files below OUTPUT are not recordings. Parts of an older
    plan stay as they are, so that the work done counts; files that came since form new parts.

    Args:
      output: folder of the results.
      patterns: names of files, with * inside a folder and ** for folders below it.
      settings: see `Plan`.
      files_per_part: the most files in a part; a tar file is a part of its own.

    Raises:
      SatError: a pattern matches nothing, or the older plan has other settings.
    """
    path = f"{output}/plan.parquet"
    old = _read(path).parts if exists(path) and _has_same_settings(path, settings) else []
    known = {file for part in old for file in part}
    found = {file for pattern in patterns for file in find(pattern)}
    new = sorted(file for file in found - known if not file.startswith(f"{output}/"))
    plan = Plan(settings=settings, parts=[*old, *_parts(new, files_per_part)])
    if new:
        write_bytes(path, _to_parquet(plan))
    return plan


def _has_same_settings(path: str, settings: Mapping[str, Any]) -> bool:
    older = _read(path).settings
    for name in sorted({*older, *settings}):
        if older.get(name) != settings.get(name):
            raise SatError(
                f"{path} was made with another {name}: use the same settings, or another --output"
            )
    return True


def _parts(files: Sequence[str], files_per_part: int) -> Iterator[Sequence[str]]:
    tars = [file for file in files if file.endswith(".tar")]
    yield from ([file] for file in tars)
    others = [file for file in files if not file.endswith(".tar")]
    for first in range(0, len(others), files_per_part):
        yield others[first : first + files_per_part]


def _to_parquet(plan: Plan) -> bytes:
    rows = [(index, file) for index, part in enumerate(plan.parts) for file in part]
    columns = [[index for index, _ in rows], [file for _, file in rows]]
    schema = _SCHEMA.with_metadata({_SETTINGS_KEY: json.dumps(dict(plan.settings))})
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns, schema=schema), buffer, compression="zstd")
    return buffer.getvalue()


def _read(path: str) -> Plan:
    try:
        table = pq.read_table(io.BytesIO(read_bytes(path)))
        settings = json.loads((table.schema.metadata or {})[_SETTINGS_KEY])
        parts: list[list[str]] = []
        for row in table.select(_SCHEMA.names).to_pylist():
            if row["part"] == len(parts):
                parts.append([])
            parts[row["part"]].append(row["file"])
    except (pa.ArrowException, KeyError, ValueError, IndexError, TypeError) as error:
        raise SatError(f"{path} is damaged: remove it, and all results beside it") from error
    return Plan(settings=settings, parts=parts)
