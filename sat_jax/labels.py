"""Names of classes: AudioSet's 527, or a user's own from a file."""

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
    """Returns AudioSet's classes in output order (class_labels_indices.csv, CC BY 4.0, Google)."""
    source = resources.files("sat_jax").joinpath("data/class_labels_indices.csv")
    with source.open(encoding="utf-8") as file:
        return tuple(Label(row["mid"], row["display_name"]) for row in csv.DictReader(file))


def default_label_names(num_classes: int) -> tuple[str, ...]:
    """Returns AudioSet's names for 527 classes, else "class 0", "class 1", …."""
    labels = audioset_labels()
    if num_classes == len(labels):
        return tuple(label.name for label in labels)
    return tuple(f"class {index}" for index in range(num_classes))


def class_fingerprint(names: Sequence[str]) -> str:
    """Returns a short hash of names and their order."""
    return hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]


def read_labels(path: str | Path) -> tuple[str, ...]:
    """Reads class names in output order.

    Args:
      path: a UTF-8 file, either a CSV with the columns index and display_name, as AudioSet's, or
        one name per line. Empty lines are skipped.

    Raises:
      SatError: the file cannot be read, has no names or a row without one, or its indices are not
        0, 1, 2, ….
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise SatError(f"cannot read {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise SatError(f"{path}: not UTF-8; save it as UTF-8") from error
    lines = [line.strip() for line in lines if line.strip()]
    if not lines:
        raise SatError(f"{path} is empty: write one class name per line")
    columns = next(csv.reader(lines[:1]), [])
    if not {"index", "display_name"} <= set(columns):
        return tuple(lines)
    rows = list(csv.DictReader(lines))
    names = {row["index"]: row["display_name"] for row in rows}
    if not all(names.values()):
        nameless = next(index for index, name in names.items() if not name)
        raise SatError(f"{path}: index {nameless} has no display_name; add it")
    if not names:
        raise SatError(f"{path} has no rows: add one for each class")
    try:
        return tuple(names[str(index)] for index in range(len(rows)))
    except KeyError as error:
        raise SatError(
            f"{path}: {len(rows)} rows, but no index {error}; number them from 0"
        ) from error


class Event(NamedTuple):
    """A strong label: a class with its onset and offset in a clip.

    Attributes:
      class_index: index of the class among the model's outputs.
      onset: start in seconds from the start of the clip, >= 0.
      offset: end in seconds, > onset.
    """

    class_index: int
    onset: float
    offset: float
