"""The names of AudioSet's 527 classes (floor 0)."""

import csv
import functools
import hashlib
from collections.abc import Sequence
from importlib import resources
from typing import NamedTuple


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
