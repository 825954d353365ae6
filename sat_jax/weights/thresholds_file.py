"""thresholds.json: one threshold per class, beside the checkpoint it was found for."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sat_jax.errors import SatError
from sat_jax.runtime.files import atomic_write, check_writable_file
from sat_jax.weights.catalog import bundled_folder, converted_folder
from sat_jax.weights.checkpoint import Checkpoint, fingerprint, is_checkpoint

_FILE = "thresholds.json"
_REPAIR = "make it again with sat-jax evaluate --save_thresholds"


def thresholds_path(name_or_path: str | Path) -> Path:
    """The thresholds.json of a model: in its folder, beside its file, or in the cache.

    Args:
      name_or_path: as for `sat_jax.find_model.find_checkpoint`.
    """
    path = Path(name_or_path)
    if path.is_dir():
        return path / _FILE
    if path.is_file():
        return path.with_name(f"{path.name}.{_FILE}")
    return converted_folder(path.name) / _FILE


def save_thresholds(
    name_or_path: str | Path,
    checkpoint: Checkpoint,
    columns: Mapping[str, np.ndarray],
    *,
    about: Mapping[str, object],
) -> Path:
    """Writes the thresholds of a model; replaces older ones.

    Args:
      name_or_path: the model.
      checkpoint: the same model, loaded.
      columns: "threshold", float [y] in [0, 1], and scores [y] of these thresholds.
      about: JSON-ready data on how they were found.

    Returns:
      The file.

    Raises:
      SatError: it cannot be written.
    """
    path = thresholds_path(name_or_path)
    rows = zip(*(column.tolist() for column in columns.values()), strict=True)
    classes = [
        {"label": label} | {k: None if v != v else v for k, v in zip(columns, row, strict=True)}
        for label, row in zip(checkpoint.labels, rows, strict=True)
    ]
    weights = fingerprint(checkpoint.config, checkpoint.variables)
    write_thresholds_file(path, {"weights": weights, "about": dict(about)}, classes)
    return path


def write_thresholds_file(
    path: Path, head: Mapping[str, object], classes: Sequence[Mapping[str, object]]
) -> None:
    """Writes the file, a line per class.

    Args:
      path: the file.
      head: all but the classes, JSON-ready.
      classes: a row per class.

    Raises:
      SatError: it cannot be written.
    """
    text, lines = json.dumps(dict(head)), ",\n".join(map(json.dumps, classes))
    check_writable_file(path)  # Creates the folder: a bundled model has none in the cache yet.
    with atomic_write(path) as temporary:
        temporary.write_text(
            f'{text.removesuffix("}")}, "classes": [\n{lines}\n]}}\n', encoding="utf-8"
        )


def has_thresholds(name_or_path: str | Path) -> bool:
    """Whether a model has thresholds that `load_thresholds` can try to read."""
    return _find(name_or_path).is_file()


def load_thresholds(name_or_path: str | Path, checkpoint: Checkpoint) -> np.ndarray:
    """Reads the thresholds of a model; of a bundled one those that it came with, if none else.

    Args:
      name_or_path: the model.
      checkpoint: the same model, loaded.

    Returns:
      float32 [y] in [0, 1].

    Raises:
      SatError: there are none, they belong to other weights or classes, or the file is damaged.
    """
    path = _find(name_or_path)
    if not path.is_file():
        raise SatError(
            f"{name_or_path} has no thresholds ({path} is missing): run sat-jax evaluate "
            "--save_thresholds, or give a number"
        )
    weights, rows = _read(path)
    if len(rows) != len(checkpoint.labels):
        raise SatError(
            f"{path} has {len(rows)} classes, but the model {len(checkpoint.labels)}: {_REPAIR}"
        )
    labels = tuple(row.get("label") for row in rows)
    if weights != fingerprint(checkpoint.config, checkpoint.variables) or (
        labels != checkpoint.labels
    ):
        raise SatError(f"{path} was made for other weights: {_REPAIR}")
    for row in rows:
        if not _is_probability(value := row.get("threshold")):
            raise SatError(
                f"{path} is damaged: the threshold of {row['label']!r} is {json.dumps(value)}, not "
                f"a number from 0 to 1; {_REPAIR}"
            )
    return np.array([row["threshold"] for row in rows], np.float32)


def _is_probability(value: object) -> bool:
    # In Python, True is an int.
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0.0 <= value <= 1.0


def _find(name_or_path: str | Path) -> Path:
    path = thresholds_path(name_or_path)
    # A checkpoint of the user's may have the bundled model's name.
    is_bundled = not (is_checkpoint(name_or_path) or Path(name_or_path).is_file())
    if is_bundled and not path.is_file() and (folder := bundled_folder(str(name_or_path))):
        return folder / _FILE
    return path


def _read(path: Path) -> tuple[Any, list[dict[str, Any]]]:
    """The fingerprint of the weights, and the rows of the classes."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:  # RecursionError: nested too deeply
        raise SatError(f"{path} is damaged ({error}): {_REPAIR}") from error
    rows = data.get("classes") if isinstance(data, dict) else None
    if not (isinstance(rows, list) and all(isinstance(row, dict) for row in rows)):
        raise SatError(f"{path} is damaged: it has no list of classes; {_REPAIR}")
    return data.get("weights"), rows
