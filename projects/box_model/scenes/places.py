"""Reads the places of related scenes: which classes go on there, and which come and go."""

import csv
from pathlib import Path
from typing import NamedTuple

PLACES = Path(__file__).parent.parent / "data" / "places.csv"


class Place(NamedTuple):
    """A place. A class stands for itself and all classes below it.

    Attributes:
      name: its name, without "_".
      background: classes that go on for the whole scene.
      foreground: classes that come and go.
    """

    name: str
    background: tuple[str, ...]
    foreground: tuple[str, ...]


def read_places(path: Path = PLACES) -> list[Place]:
    """Reads the places, in the order of the table."""
    with path.open(encoding="utf-8", newline="") as file:
        return [
            Place(row["place"], *(tuple(row[key].split(";")) for key in Place._fields[1:]))
            for row in csv.DictReader(file)
        ]
