"""Class names from a file (floor 0)."""

import csv
from pathlib import Path

from sat_jax.errors import SatError


def read_labels(path: str | Path) -> tuple[str, ...]:
    """Reads class names in output order.

    Args:
      path: a UTF-8 file in AudioSet's layout (a CSV with the columns index and display_name), or
        with one name a line; empty lines don't count.

    Raises:
      SatError: the file can't be read, names nothing, or has a row without a name, or its indices
        aren't 0, 1, 2, ….
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise SatError(f"cannot read {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise SatError(f"{path} is no text in UTF-8") from error
    lines = [line.strip() for line in lines if line.strip()]
    if not lines:
        raise SatError(f"{path} is empty: give names of classes, one a line")
    columns = next(csv.reader(lines[:1]), [])
    if not {"index", "display_name"} <= set(columns):
        return tuple(lines)
    rows = list(csv.DictReader(lines))
    names = {row["index"]: row["display_name"] for row in rows}
    if not all(names.values()):
        nameless = next(index for index, name in names.items() if not name)
        raise SatError(f"{path} has no display_name for index {nameless}: give each class one")
    if not names:
        raise SatError(f"{path} has columns but no rows: give names of classes")
    try:
        return tuple(names[str(index)] for index in range(len(rows)))
    except KeyError as error:
        raise SatError(f"{path} has {len(rows)} rows, but none of index {error}") from error
