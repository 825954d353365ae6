"""Tables of clips and events: reading rows, class names and times."""

import collections
import csv
import math
import os
from collections.abc import Iterator, Mapping, Sequence

from sat_jax.errors import SatError, did_you_mean
from sat_jax.labels import audioset_labels

Fields = list[str | None]
"""Fields of one row in the order of the wanted columns; None where the row has no such field."""


def read_rows(
    table: str | os.PathLike[str],
    *layouts: Sequence[str],
    optional: Sequence[str] = (),
    delimiter: str,
    quotes: bool = True,
    allow_extra: bool = False,
) -> Iterator[tuple[int, Fields]]:
    """Reads a table whose first line names its columns; it may have others.

    Args:
      table: a UTF-8 file.
      *layouts: columns that it must have; with several layouts, those of one of them.
      optional: columns that it may have.
      delimiter: character between columns.
      quotes: whether fields may stand in double quotes.
      allow_extra: accepts rows with more fields than the first line.

    Yields:
      The line where a row ends, counted from 1, and the fields of the layout and `optional`.

    Raises:
      SatError: the table can't be read, lacks a column or has a row with too many fields.
    """
    name, line = os.fspath(table), 0
    try:
        with open(name, encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(
                file,
                delimiter=delimiter,
                quoting=csv.QUOTE_MINIMAL if quotes else csv.QUOTE_NONE,
                strict=True,
                skipinitialspace=delimiter == ",",
            )
            header = next(reader, [])
            line = reader.line_num
            columns = _find_layout(header, layouts, name, delimiter)
            # One past the end for a column that the table lacks.
            places = [
                header.index(column) if column in header else len(header)
                for column in (*columns, *optional)
            ]
            for row in reader:
                line = reader.line_num
                if len(row) > len(header) and not allow_extra:
                    raise SatError(
                        f"{name}, line {line}: has {len(row)} fields for {len(header)} columns: "
                        "put fields that hold commas in quotes"
                    )
                if row:
                    size = min(len(row), len(header))
                    yield line, [row[place] if place < size else None for place in places]
    except OSError as error:
        raise SatError(f"cannot read {name}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise SatError(f"{name}: not UTF-8; save it as UTF-8") from error
    except csv.Error as error:
        # The row begins here: an unclosed quote is found only at the end of the file.
        raise SatError(f"{name}, line {line + 1}: {error}: correct its quotes") from error


def _find_layout(
    header: Sequence[str], layouts: Sequence[Sequence[str]], table: str, delimiter: str
) -> Sequence[str]:
    closest = max(layouts, key=lambda columns: len(set(columns) & set(header)))
    missing = [column for column in closest if column not in header]
    if missing:
        example = delimiter.replace("\t", "<tab>").join(closest)
        raise SatError(
            f"{table}, line 1: has no column {missing[0]!r}: the first line must name {example}"
        )
    return closest


def parse_seconds(text: str, column: str, where: str) -> float:
    """Parses a time of a table.

    Args:
      text: the field.
      column: its column, for messages.
      where: file and line, for messages.

    Raises:
      SatError: the text is not a finite number from 0 on.
    """
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0.0 <= seconds < math.inf:
        raise SatError(f"{where}: {column}={text!r} is not a time in seconds from 0")
    return seconds


class UnknownClassError(SatError):
    """A table names a class that the model lacks."""


class ClassFinder:
    """Finds classes by name, AudioSet mid or index."""

    def __init__(self, label_names: Sequence[str]) -> None:
        """Takes the model's class names in output order."""
        counts = collections.Counter(label_names)
        self._ambiguous = {name for name, count in counts.items() if count > 1}
        self._names = {name: index for index, name in enumerate(label_names) if counts[name] == 1}
        mids = {
            label.mid: self._names[label.name]
            for label in audioset_labels()
            if label.name in self._names
        }
        indices = {str(index): index for index in range(len(label_names))}
        # A class may be called "7"; the name then has priority over the index.
        self._classes: Mapping[str, int] = indices | mids | self._names

    def find_all(self, labels: str, where: str) -> tuple[int, ...]:
        """Returns the indices of labels joined by ``;``: each once, ascending.

        Args:
          labels: a field of a table.
          where: file and line, for messages.

        Raises:
          UnknownClassError: a label is not a class of the model.
          SatError: a label is the name of several classes.
        """
        names = [name for part in labels.split(";") if (name := part.strip())]
        return tuple(sorted({self._find(name, where) for name in names}))

    def get(self, name: str, where: str) -> int | None:
        """Returns the index of one class, or None if the model lacks it.

        Raises:
          SatError: several classes have that name; the message begins with `where`.
        """
        if name in self._ambiguous:
            raise SatError(f"{where}: several classes are called {name!r}: give the index")
        return self._classes.get(name)

    def _find(self, name: str, where: str) -> int:
        index = self.get(name, where)
        if index is None:
            near = did_you_mean(name, self._names) or ": give a name, AudioSet mid or index"
            raise UnknownClassError(f"{where}: the model has no class {name!r}{near}")
        return index
