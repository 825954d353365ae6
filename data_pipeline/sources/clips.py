"""Labelled clips from a table: files and the classes heard in them.

file,labels
street/1.wav,Car;Siren
street/2.wav,"Traffic noise, roadway noise"
street/3.wav,/m/0bt9lr;42

With the columns start and end (seconds, either may be empty) a row is that part of its file, which
may then stand in several rows.
"""

import csv
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from data_pipeline.sources.class_finder import ClassFinder
from sat_jax.errors import SatError


class Columns(NamedTuple):
    """What a table calls the columns that name files and labels."""

    file: str
    labels: str


COLUMNS = Columns("file", "labels")


class Where(NamedTuple):
    """Which rows of a table count: those with one of these values in a column."""

    column: str
    values: tuple[str, ...]


class Clip(NamedTuple):
    """A recording, or a part of one, with weak labels.

    Attributes:
      path: the file, which may be missing.
      labels: indices of the classes heard in it, ascending; perhaps none.
      id: its name in the table, with "@start-end" behind it if it is a part.
      start: where it begins in the file, seconds.
      end: where it ends in the file, seconds; None is the file's end.
    """

    path: Path
    labels: tuple[int, ...]
    id: str
    start: float = 0.0
    end: float | None = None


class _Row(NamedTuple):
    """One row of the table, the line it ends in, and both as messages name them."""

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
    """Reads a table of labelled clips.

    Files that are missing stay in the list, for whoever opens them to count.

    Args:
      table: a UTF-8 CSV file whose first line names the columns ``file`` and ``labels``, perhaps
        ``start`` and ``end``; others are passed over. Labels are joined by ``;``, each a class
        name, an AudioSet mid, or an index counted from 0; a clip with an empty field belongs to
        no class.
      label_names: the model's class names in output order; empty where labels don't matter: then
        they are passed over, and the column may be missing.
      folder: what file names are relative to; None is the table's own folder.
      columns: what the table calls the columns ``file`` and ``labels``.
      where: which rows count; None is all.

    Returns:
      The clips in the table's order, at least one.

    Raises:
      SatError: the table can't be read, has no rows, lists a file or a part of it twice, names a
        class that the model lacks or times that are none, or none of its files is there.
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
            f"no row of {table} has {where.column}={','.join(where.values)}: give other values"
        )
    if not clips:
        raise SatError(f"{table} lists no clips: give one row a clip below the header")
    if not any(clip.path.is_file() for clip in clips):
        raise SatError(
            f"none of the {len(clips)} files of {table} is there, the first should be "
            f"{clips[0].path}: name the folder that they are relative to"
        )
    return clips


def parse_columns(text: str | None) -> Columns:
    """Column names given as FILE,LABELS; None is the usual ones.

    Raises:
      SatError: the text is not two names.
    """
    if text is None:
        return COLUMNS
    names = text.split(",")
    if len(names) != 2 or not all(names):
        raise SatError(f"columns={text} is not FILE,LABELS: give two names of columns")
    return Columns(*names)


def parse_where(text: str | None) -> Where | None:
    """Rows given as COLUMN=VALUE,VALUE…; None is all.

    Raises:
      SatError: the text names no column or an empty value.
    """
    if text is None:
        return None
    column, _, values = text.partition("=")
    if not column or not all(values.split(",")):
        raise SatError(f"where={text} is not COLUMN=VALUE,VALUE: name a column and its values")
    return Where(column, tuple(values.split(",")))


def class_names(table: str | os.PathLike[str], *, columns: Columns = COLUMNS) -> tuple[str, ...]:
    """The classes that a table's labels name, in alphabetical order: classes of one's own.

    Args:
      table: as for `read_clips`.
      columns: likewise.

    Raises:
      SatError: the table can't be read, or names no class.
    """
    rows = _rows(table, columns, None, needs_labels=True)
    names = {name.strip() for row in rows for name in row.labels.split(";")} - {""}
    if not names:
        raise SatError(
            f"no row of {table} has a label: write class names into that column, or give --labels"
        )
    return tuple(sorted(names))


def column_values(table: str | os.PathLike[str], column: str) -> frozenset[str]:
    """What stands in a column of a table, such as the folds of its clips.

    Args:
      table: a UTF-8 CSV file whose first line names its columns.
      column: one of them.

    Raises:
      SatError: the table can't be read, lacks the column, or a row has nothing in it.
    """
    values = set()
    for line, fields in _lines(table, (column,), None):
        value = (fields[column] or "").strip()
        if not value:
            raise SatError(f"{os.fspath(table)}, line {line}: {column} is empty: fill it")
        values.add(value)
    return frozenset(values)


def _rows(
    table: str | os.PathLike[str], columns: Columns, where: Where | None, *, needs_labels: bool
) -> Iterator[_Row]:
    needed = columns if needs_labels else columns[:1]
    for line, fields in _lines(table, needed, where):
        yield _row(fields, columns, needed, os.fspath(table), line)


def _lines(
    table: str | os.PathLike[str], needed: Sequence[str], where: Where | None
) -> Iterator[tuple[int, Mapping[str | None, str | None]]]:
    """The rows of a table that count, by column, and the lines they end in."""
    name = os.fspath(table)
    try:
        with open(name, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True, skipinitialspace=True)
            _check_header(reader.fieldnames, needed, name)
            if where and where.column not in (reader.fieldnames or ()):
                raise SatError(f"{name} has no column {where.column!r} to choose rows by")
            for fields in reader:
                if where and (fields[where.column] or "").strip() not in where.values:
                    continue
                yield reader.line_num, fields
    except OSError as error:
        raise SatError(f"cannot read {name}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise SatError(f"{name} is no text in UTF-8: save it as a CSV file in UTF-8") from error
    except csv.Error as error:
        line = reader.line_num + 1  # An unclosed quote is found only at the end of the file.
        raise SatError(f"{name}, line {line}: {error}: mend its quotes") from error


def _check_header(columns: Sequence[str] | None, needed: Sequence[str], table: str) -> None:
    for name in needed:
        if name not in (columns or ()):
            raise SatError(
                f"{table} has no column {name!r}: its first line must name its columns, "
                f"{' and '.join(needed)} among them"
            )


def _row(
    fields: Mapping[str | None, str | None],
    columns: Columns,
    needed: Sequence[str],
    table: str,
    line: int,
) -> _Row:
    where = f"{table}, line {line}"
    if None in fields:
        raise SatError(f"{where}: too many fields: put labels that hold commas in quotes")
    file, labels = fields[columns.file], fields.get(columns.labels)
    if not file or any(fields[column] is None for column in needed):
        raise SatError(f"{where}: needs a file and its labels ({','.join(columns)})")
    start = _seconds(fields, "start", where) or 0.0
    end = _seconds(fields, "end", where)
    if end is not None and end <= start:
        raise SatError(f"{where}: ends at {end:g} s, not after its start at {start:g} s")
    return _Row(line, where, file, labels or "", start, end)


def _seconds(fields: Mapping[str | None, str | None], column: str, where: str) -> float | None:
    text = (fields.get(column) or "").strip()
    if not text:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0.0 <= seconds < math.inf:
        raise SatError(f"{where}: {column}={text!r} is no number of seconds from the file's start")
    return seconds


def _name(row: _Row) -> str:
    if row.start == 0.0 and row.end is None:
        return row.file
    # Twelve digits tell apart single samples of the longest recordings.
    return f"{row.file}@{row.start:.12g}-{'' if row.end is None else f'{row.end:.12g}'}"
