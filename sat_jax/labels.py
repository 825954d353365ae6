"""Classes and their names: AudioSet's 527, or a user's own from a file."""

import csv
import functools
import hashlib
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import NamedTuple

from sat_jax.errors import SatError


class Label(NamedTuple):
    """One class: its AudioSet id and its readable name."""

    mid: str
    name: str


@functools.cache
def audioset_labels() -> tuple[Label, ...]:
    """AudioSet's classes in output order (class_labels_indices.csv, CC BY 4.0, Google)."""
    source = resources.files("sat_jax").joinpath("data/class_labels_indices.csv")
    with source.open(encoding="utf-8") as file:
        return tuple(Label(row["mid"], row["display_name"]) for row in csv.DictReader(file))


def default_label_names(num_classes: int) -> tuple[str, ...]:
    """AudioSet's names where the class count is AudioSet's, else "class 0", "class 1", …."""
    labels = audioset_labels()
    if num_classes == len(labels):
        return tuple(label.name for label in labels)
    return tuple(f"class {index}" for index in range(num_classes))


def class_fingerprint(names: Sequence[str]) -> str:
    """A short text that other names have not, nor the same ones in another order."""
    return hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]


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


class Event(NamedTuple):
    """A sound in a clip, as a person labelled it.

    Attributes:
      class_index: its class's place among the model's outputs.
      onset: where it begins, seconds from the clip's start, >= 0.
      offset: where it ends, seconds; > onset.
    """

    class_index: int
    onset: float
    offset: float
