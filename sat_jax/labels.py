"""Names of classes: AudioSet's 527, or a user's own from a file; and how users choose some."""

import csv
import functools
import hashlib
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import NamedTuple

from sat_jax.errors import SatError, did_you_mean


class Label(NamedTuple):
    """One class: its AudioSet id and its readable name."""

    mid: str
    name: str


@functools.cache
def audioset_labels() -> tuple[Label, ...]:
    """Returns AudioSet's classes in output order (class_labels_indices.csv, CC BY 4.0, Google)."""
    rows = _read_data("class_labels_indices.csv")
    return tuple(Label(row["mid"], row["display_name"]) for row in rows)


class _Node(NamedTuple):
    """A class of AudioSet's ontology; 105 of the 632 are not among the 527 labels."""

    name: str
    parents: tuple[str, ...]


@functools.cache
def _ontology() -> Mapping[str, _Node]:
    """AudioSet's ontology by id (ontology.csv, from Google's ontology.json, CC BY-SA 4.0)."""
    rows = _read_data("ontology.csv")
    return {r["mid"]: _Node(r["display_name"], tuple(r["parents"].split())) for r in rows}


def _read_data(name: str) -> list[dict[str, str]]:
    source = resources.files("sat_jax").joinpath(f"data/{name}")
    with source.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def audioset_ids(names: Sequence[str]) -> tuple[str, ...]:
    """Returns the AudioSet id of each class name, such as "/m/0bt9lr"; "" if it has none."""
    ids = {node.name: mid for mid, node in _ontology().items()}
    return tuple(ids.get(name, "") for name in names)


def select_classes(
    names: Sequence[str], *, only: Sequence[str] = (), without: Sequence[str] = ()
) -> tuple[int, ...]:
    """Returns the indices of the classes that a user chose, in ascending order.

    A class is given by its name, in any case, or by its AudioSet id. After a ``*``, as in
    ``*Animal``, it stands for itself and all classes below it in AudioSet's ontology.

    Args:
      names: [y] class names of the model.
      only: the classes to keep; empty for all.
      without: the classes to leave out; they win over `only`.

    Raises:
      SatError: the model has no such class, or no class is left.
    """
    kept = set(range(len(names)))
    if only:
        kept = set().union(*(_classes_of(wanted, names) for wanted in only))
    kept = kept.difference(*(_classes_of(wanted, names) for wanted in without))
    if not kept:
        raise SatError(f"no class is left without {', '.join(without)}: leave out fewer")
    return tuple(sorted(kept))


def _classes_of(wanted: str, names: Sequence[str]) -> set[int]:
    key = wanted.strip().casefold()
    if found := {index for index, name in enumerate(names) if name.casefold() == key}:
        return found
    name = key.removeprefix("*").lstrip()
    nodes = {mid for mid, node in _ontology().items() if name in (mid, node.name.casefold())}
    below, ids = _with_all_below(nodes), audioset_ids(names)
    wanted_ids = nodes if name == key else below
    if found := {index for index, mid in enumerate(ids) if mid in wanted_ids}:
        return found
    if not below.isdisjoint(ids):
        raise SatError(f"the model has only classes below {wanted!r}: use '*{wanted}'")
    choices = names if name == key else [f"*{node.name}" for node in _ontology().values()]
    near = "" if nodes and choices is not names else did_you_mean(key, choices)
    raise SatError(f"the model has no class {wanted!r}{near}")


def _with_all_below(nodes: set[str]) -> set[str]:
    """The classes and all their descendants."""
    found, size = set(nodes), 0
    while len(found) > size:
        size = len(found)
        found |= {mid for mid, node in _ontology().items() if not found.isdisjoint(node.parents)}
    return found


def classes_above(names: Sequence[str]) -> tuple[tuple[int, ...], ...]:
    """Returns for each class the indices of those above it in AudioSet's ontology, ascending."""
    ids = audioset_ids(names)
    index_of = {mid: index for index, mid in enumerate(ids) if mid}
    return tuple(
        tuple(sorted(index_of[mid] for mid in _ancestors(own) if mid in index_of)) for own in ids
    )


@functools.cache
def _ancestors(mid: str) -> frozenset[str]:
    parents = _ontology()[mid].parents if mid else ()
    return frozenset(parents).union(*map(_ancestors, parents))


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
