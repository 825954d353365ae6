"""Thresholds of classes, kept beside the weights that they were found for (floor 4)."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from sat_jax.cache_dir import cache_dir
from sat_jax.checkpoint import Checkpoint, fingerprint
from sat_jax.errors import SatError
from sat_jax.report.files import check_file, naming_file, replacing_file

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
    return cache_dir() / "converted" / path.name / _FILE


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
    check_file(path)  # A bundled model has no folder yet where users may write.
    with naming_file(path), replacing_file(path) as temporary:
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
      SatError: there are none, they are of other weights, or the file is damaged.
    """
    path = thresholds_path(name_or_path)
    if not path.is_file():
        raise SatError(
            f"{name_or_path} has no thresholds ({path}): make them by evaluate.py "
            "--save_thresholds, or give a number"
        )
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        weights = data["weights"]
        labels = tuple(row["label"] for row in data["classes"])
        values = np.array([row["threshold"] for row in data["classes"]], np.float32)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SatError(f"{path} is damaged ({error}): make it again") from error
    if weights != fingerprint(checkpoint.config, checkpoint.variables) or (
        labels != checkpoint.labels
    ):
        raise SatError(f"{path} was made for other weights: make it again by evaluate.py")
    if not ((values >= 0.0) & (values <= 1.0)).all():
        raise SatError(f"{path} is damaged (thresholds outside 0 to 1): make it again")
    return values
