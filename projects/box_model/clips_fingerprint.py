"""Telling whether a table of recordings is still the same."""

import hashlib
from pathlib import Path

from data_pipeline.sources.clips import column_values


def clips_fingerprint(table: Path) -> str:
    """A short text that changes when a table or the size of a recording in its column "file" does.

    Raises:
      SatError: the table can't be read.
    """
    names = sorted(column_values(table, "file"))
    digest = hashlib.sha256(table.read_bytes())
    for name in names:
        path = table.parent / name
        digest.update(f"{name} {path.stat().st_size if path.is_file() else None}\n".encode())
    return digest.hexdigest()[:16]
