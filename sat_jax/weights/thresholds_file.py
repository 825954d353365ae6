"""Thresholds of classes, kept beside the weights that they were found for."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sat_jax.errors import SatError
from sat_jax.runtime.files import atomic_write, check_writable_file
from sat_jax.weights.catalog import converted_folder
from sat_jax.weights.checkpoint import Checkpoint, fingerprint

_FILE = "thresholds.json"


def thresholds_path(name_or_path: str | Path) -> Path:
    """Where a model's thresholds lie: in its folder, or beside its file.

    Args:
      name_or_path: as for `sat_jax.tagger.find_checkpoint`.
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
    """Writes a model's thresholds, in place of older ones.

    Args:
      name_or_path: the model.
      checkpoint: what was loaded from there.
      columns: "threshold", float [y] in [0, 1], and other numbers [y] that tell how good it is.
      about: JSON-ready data on how they were found.

    Returns:
      The file.

    Raises:
      SatError: it can't be written.
    """
    path = thresholds_path(name_or_path)
    rows = zip(*(column.tolist() for column in columns.values()), strict=True)
    classes = [
        {"label": label} | {k: None if v != v else v for k, v in zip(columns, row, strict=True)}
        for label, row in zip(checkpoint.labels, rows, strict=True)
    ]
    weights = fingerprint(checkpoint.config, checkpoint.variables)
    data = {"weights": weights, "about": dict(about), "classes": classes}
    check_writable_file(path)  # A bundled model has no folder yet where users may write.
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    return path


def load_thresholds(name_or_path: str | Path, checkpoint: Checkpoint) -> np.ndarray:
    """Reads a model's thresholds.

    Args:
      name_or_path: the model.
      checkpoint: what was loaded from there.

    Returns:
      float32 [y] in [0, 1].

    Raises:
      SatError: there are none, they are of other weights or classes, or the file is damaged.
    """
    path = thresholds_path(name_or_path)
    if not path.is_file():
        raise SatError(
            f"{name_or_path} has no thresholds ({path}): make them by evaluate.py "
            "--save_thresholds, or give a number"
        )
    weights, rows = _read(path)
    if len(rows) != len(checkpoint.labels):
        raise SatError(
            f"{path} has {len(rows)} classes, the model has {len(checkpoint.labels)}: make it "
            "again by evaluate.py"
        )
    labels = tuple(row.get("label") for row in rows)
    if weights != fingerprint(checkpoint.config, checkpoint.variables) or (
        labels != checkpoint.labels
    ):
        raise SatError(f"{path} was made for other weights: make it again by evaluate.py")
    for row in rows:
        if not _is_share(value := row.get("threshold")):
            raise SatError(
                f"{path} is damaged: the threshold of {row['label']!r} is {json.dumps(value)}, no "
                "number from 0 to 1: make it again"
            )
    return np.array([row["threshold"] for row in rows], np.float32)


def _is_share(value: object) -> bool:
    # To Python true is a number too.
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0.0 <= value <= 1.0


def _read(path: Path) -> tuple[Any, list[dict[str, Any]]]:
    """The fingerprint of weights, and what is said of each class."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    # What is nested too deeply ends as a recursion.
    except (OSError, ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else error
        raise SatError(f"{path} is damaged ({reason}): make it again") from error
    rows = data.get("classes") if isinstance(data, dict) else None
    if not (isinstance(rows, list) and all(isinstance(row, dict) for row in rows)):
        raise SatError(f"{path} is damaged: it holds no list of classes: make it again")
    return data.get("weights"), rows
