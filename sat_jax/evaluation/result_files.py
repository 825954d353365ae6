"""What came of evaluations, as files."""

import csv
import json
import math
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sat_jax.evaluation.result_tables import as_markdown
from sat_jax.evaluation.results import Evaluation, MissingClip
from sat_jax.runtime.files import (
    atomic_write,
    check_writable_file,
    check_writable_folder,
    explain_write_errors,
)

METRICS, TABLE, MISSING = "metrics.json", "table.md", "missing_clips.csv"
"""Names of files that `save_evaluations` writes."""

_STEM = re.compile(r"[\w.-]+")
"""Of such letters the names of evaluations are made: none leads out of a folder."""

SCORES, CLASSES, PLOTS = "scores", "per_class", "plots"
"""Names of folders beside them."""


def check_results(folder: str | Path, *, plots: bool) -> None:
    """Makes the folders of results, before hours of audio are scored.

    Args:
      folder: where to.
      plots: whether pictures will be drawn.

    Raises:
      SatError: one can't be made, or a file in them not be written.
    """
    for name in (METRICS, TABLE, MISSING):
        check_writable_file(Path(folder) / name)
    for name in (SCORES, CLASSES, *([PLOTS] if plots else [])):
        check_writable_folder(Path(folder) / name)


def save_evaluations(folder: str | Path, evaluations: Sequence[Evaluation]) -> None:
    """Writes evaluations; files of these names are replaced, each whole or not at all.

    What earlier ones wrote class by class, and pictures of it, is removed where it is not of these.

    ``metrics.json`` is a list of `Evaluation.to_dict`, each with the ``name`` of its files;
    ``table.md`` the tables of `as_markdown`; ``missing_clips.csv`` has a row for each clip that one
    of them could not score; and ``per_class/*.csv`` a row a class, with empty fields for measures
    it does not have.

    Args:
      folder: where to, see `check_results`.
      evaluations: at least one.

    Raises:
      SatError: the files can't be written.
    """
    path = Path(folder)
    names = file_stems(evaluations)
    for name in _names_in(path / METRICS) - set(names):
        for stale in (path / CLASSES / f"{name}.csv", path / PLOTS / class_picture(name)):
            with explain_write_errors(stale):
                stale.unlink(missing_ok=True)
    for name, evaluation in zip(names, evaluations, strict=True):
        _write_classes(path / CLASSES / f"{name}.csv", evaluation)
    missing = dict.fromkeys(clip for each in evaluations for clip in each.missing)
    _write_csv(path / MISSING, MissingClip._fields, missing)
    numbers = [
        {"name": name} | evaluation.to_dict()
        for name, evaluation in zip(names, evaluations, strict=True)
    ]
    _write_text(path / METRICS, json.dumps(numbers, indent=2, allow_nan=False))
    _write_text(path / TABLE, as_markdown(evaluations))


def class_picture(name: str) -> str:
    """The picture of what an evaluation of a name found class by class."""
    return f"class_ap_{name}.png"


def _names_in(path: Path) -> set[str]:
    """Names of the evaluations that an earlier program wrote, if it did."""
    try:
        written = [each["name"] for each in json.loads(path.read_text(encoding="utf-8"))]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return set()  # None of ours: nothing there is to be touched.
    return {name for name in written if isinstance(name, str) and _STEM.fullmatch(name)}


def file_stems(evaluations: Sequence[Evaluation]) -> list[str]:
    """A name for files of each evaluation, no two alike."""
    stems: list[str] = []
    for evaluation in evaluations:
        stem = re.sub(r"[^\w.-]+", "_", evaluation.title).strip("_.")
        taken = {other.casefold() for other in stems}
        numbered = (f"{stem}_{number}" for number in range(2, len(stems) + 3))
        stems.append(stem if stem.casefold() not in taken else _first_free(numbered, taken))
    return stems


def _write_classes(path: Path, evaluation: Evaluation) -> None:
    metrics, stability, strong = evaluation.metrics, evaluation.stability, evaluation.strong
    columns: dict[str, Iterable[Any]] = {
        "index": range(len(evaluation.labels)),
        "label": evaluation.labels,
        "positives": metrics.positives.tolist(),
        "average_precision": _or_empty(metrics.average_precision),
        "roc_auc": _or_empty(metrics.roc_auc),
    }
    if stability:
        columns["squared_change"] = _or_empty(stability.squared_change)
        columns["share_above"] = _or_empty(stability.share_above)
    if strong:
        columns["segment_positives"] = strong.segments.positives.tolist()
        columns["segment_average_precision"] = _or_empty(strong.segments.average_precision)
    _write_csv(path, list(columns), zip(*columns.values(), strict=True))


def _first_free(names: Iterable[str], taken: set[str]) -> str:
    return next(name for name in names if name.casefold() not in taken)


def _or_empty(numbers: np.ndarray) -> list[float | str]:
    return ["" if math.isnan(number) else number for number in numbers.tolist()]


def _write_text(path: Path, text: str) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def _write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    with (
        atomic_write(path) as temporary,
        temporary.open("w", encoding="utf-8", newline="", errors="backslashreplace") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)
