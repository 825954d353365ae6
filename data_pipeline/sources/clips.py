"""Tables (CSV) of sound files and their classes.

file,labels
street/1.wav,Car;Siren
street/2.wav,"Traffic noise, roadway noise"
street/3.wav,/m/0bt9lr;42

Optional columns start and end (seconds, either may be empty) make a row a part of its file; a file
may then have several rows.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from data_pipeline.sources.tables import ClassFinder, parse_seconds, read_rows
from sat_jax.errors import SatError


class Columns(NamedTuple):
    """A table's names for the columns of files and labels."""

    file: str
    labels: str


COLUMNS = Columns("file", "labels")


class Where(NamedTuple):
    """Selects the rows of a table that have one of these values in a column."""

    column: str
    values: tuple[str, ...]


class Clip(NamedTuple):
    """A recording, or a part of one, with weak labels.

    Attributes:
      path: the file, which may be missing.
      labels: class indices, ascending; may be empty.
      id: the file's name in the table; for a part, with "@start-end" appended.
      start: seconds from the file's start to the clip's.
      end: seconds from the file's start to the clip's end; None is the file's end.
    """

    path: Path
    labels: tuple[int, ...]
    id: str
    start: float = 0.0
    end: float | None = None


class _Row(NamedTuple):
    """One row: the line where it ends, file and line for messages, and its fields."""

    line: int
    where: str
    file: str
    labels: str
    start: float
    end: float | None


def read_clips(
    table: str | os.PathLike[str],
    label_names: Sequence[str],
    *,
    folder: str | os.PathLike[str] | None = None,
    columns: Columns = COLUMNS,
    where: Where | None = None,
) -> list[Clip]:
    """Reads a table of labelled clips. Clips whose file is missing are kept.

    Args:
      table: a UTF-8 CSV file whose first line names the columns ``file`` and ``labels``, and
        optionally ``start`` and ``end``; other columns are ignored. Labels are joined by ``;``: a
        class name, AudioSet mid, or index from 0 each. An empty field is a clip of no class.
      label_names: the model's class names in output order. If empty, labels are ignored and the
        column may be missing.
      folder: folder that file names are relative to; None is the table's folder.
      columns: the table's names for ``file`` and ``labels``.
      where: the rows to read; None reads all.

    Returns:
      The clips in the table's order, at least one.

    Raises:
      SatError: the table can't be read or has no rows, lists a file or a part of it twice, has a
        class that the model lacks or an invalid time, or all of its files are missing.
    """
    base = Path(table).parent if folder is None else Path(folder)
    classes = ClassFinder(label_names) if label_names else None
    seen: dict[tuple[str, float, float | None], int] = {}
    clips = []
    for row in _rows(table, columns, where, needs_labels=bool(label_names)):
        path = base / row.file
        name = _name(row)
        key = (os.path.abspath(path), row.start, row.end)
        if key in seen:
            raise SatError(f"{row.where}: {name} is also in line {seen[key]}: remove one of them")
        seen[key] = row.line
        labels = classes.find_all(row.labels, row.where) if classes else ()
        clips.append(Clip(path, labels, name, row.start, row.end))
    if not clips and where:
        raise SatError(
            f"{table}: no row has {where.column}={','.join(where.values)}: give other values"
        )
    if not clips:
        raise SatError(f"{table}: lists no clips: add a row per clip below the header")
    # Unlike pathlib, os.path takes a name of any length.
    if not any(os.path.isfile(clip.path) for clip in clips):
        raise SatError(
            f"{table}: all {len(clips)} files are missing, the first is {clips[0].path}: give "
            "their folder by --folder"
        )
    return clips


def parse_columns(text: str | None) -> Columns:
    """Parses column names given as FILE,LABELS; None is the default names.

    Raises:
      SatError: the text is not two names.
    """
    if text is None:
        return COLUMNS
    names = text.split(",")
    if len(names) != 2 or not all(names):
        raise SatError(f"columns={text} is not FILE,LABELS: give two column names")
    return Columns(*names)


def parse_where(text: str | None) -> Where | None:
    """Parses a selection of rows given as COLUMN=VALUE,VALUE…; None selects all.

    Raises:
      SatError: the text names no column or an empty value.
    """
    if text is None:
        return None
    column, _, values = text.partition("=")
    if not column or not all(values.split(",")):
        raise SatError(f"where={text} is not COLUMN=VALUE,VALUE: give a column and its values")
    return Where(column, tuple(values.split(",")))


def class_names(table: str | os.PathLike[str], *, columns: Columns = COLUMNS) -> tuple[str, ...]:
    """Returns all classes in a table's labels, in alphabetical order.

    Args:
      table: see `read_clips`.
      columns: see `read_clips`.

    Raises:
      SatError: the table can't be read, or has no labels.
    """
    rows = _rows(table, columns, None, needs_labels=True)
    names = {name.strip() for row in rows for name in row.labels.split(";")} - {""}
    if not names:
        raise SatError(f"{table}: {columns.labels} is empty in all rows: fill it, or give --labels")
    return tuple(sorted(names))


def column_values(table: str | os.PathLike[str], column: str) -> frozenset[str]:
    """Returns all values in a column of a table, such as the folds of its clips.

    Args:
      table: a UTF-8 CSV file whose first line names its columns.
      column: one of them.

    Raises:
      SatError: the table can't be read, lacks the column, or has an empty field in it.
    """
    values = set()
    for line, (field,) in read_rows(table, (column,), delimiter=","):
        value = (field or "").strip()
        if not value:
            raise SatError(f"{os.fspath(table)}, line {line}: {column} is empty: fill it")
        values.add(value)
    return frozenset(values)


def _rows(
    table: str | os.PathLike[str], columns: Columns, where: Where | None, *, needs_labels: bool
) -> Iterator[_Row]:
    needed = columns if needs_labels else columns[:1]
    selecting = (where.column,) if where else ()
    optional = ("start", "end", columns.labels)
    for line, fields in read_rows(table, (*needed, *selecting), optional=optional, delimiter=","):
        *given, start_text, end_text, labels = fields
        if where and (given[-1] or "").strip() not in where.values:
            continue
        file, place = given[0], f"{os.fspath(table)}, line {line}"
        if not file or None in given[: len(needed)]:
            raise SatError(f"{place}: a field is missing: fill {' and '.join(needed)}")
        start = _seconds(start_text, "start", place) or 0.0
        end = _seconds(end_text, "end", place)
        if end is not None and end <= start:
            raise SatError(f"{place}: end={end:g} is not after start={start:g}")
        yield _Row(line, place, file, labels or "", start, end)


def _seconds(text: str | None, column: str, where: str) -> float | None:
    text = (text or "").strip()
    return parse_seconds(text, column, where) if text else None


def _name(row: _Row) -> str:
    if row.start == 0.0 and row.end is None:
        return row.file
    # Twelve digits distinguish single samples of the longest recordings.
    return f"{row.file}@{row.start:.12g}-{'' if row.end is None else f'{row.end:.12g}'}"
