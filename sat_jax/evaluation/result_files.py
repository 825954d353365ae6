"""Files with the results of evaluations."""

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
SCORES, CLASSES, PLOTS = "scores", "per_class", "plots"
_STEM = re.compile(r"[\w.-]+")
"""Characters of file stems; none of them leads out of a folder."""


def check_results(folder: str | Path, *, plots: bool) -> None:
    """Checks that results can be written, before hours of audio are scored. Makes the folders.

    Args:
      folder: of the results.
      plots: whether there will be plots.

    Raises:
      SatError: a folder can't be made, or a file can't be written.
    """
    for name in (METRICS, TABLE, MISSING):
        check_writable_file(Path(folder) / name)
    for name in (SCORES, CLASSES, *([PLOTS] if plots else [])):
        check_writable_folder(Path(folder) / name)


def save_evaluations(folder: str | Path, evaluations: Sequence[Evaluation]) -> None:
    """Writes results; replaces those of an earlier evaluation, each file whole or not at all.

    ``metrics.json`` is a list of `Evaluation.to_dict`, each with the ``name`` of its files.
    ``table.md`` holds the tables of `as_markdown`. ``missing_clips.csv`` has a row for each clip
    that could not be scored. ``per_class/NAME.csv`` has a row for each class; numbers that do not
    exist are left empty. Files in ``per_class/`` and ``plots/`` are removed if the old
    ``metrics.json`` names them and the new one does not.

    Args:
      folder: checked by `check_results`.
      evaluations: at least one.

    Raises:
      SatError: a file can't be written.
    """
    path = Path(folder)
    names = file_stems(evaluations)
    for name in _names_in(path / METRICS) - set(names):
        for stale in (path / CLASSES / f"{name}.csv", path / PLOTS / class_plot_name(name)):
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


def class_plot_name(stem: str) -> str:
    """Returns the file name of an evaluation's plot of average precision by class."""
    return f"class_ap_{stem}.png"


def file_stems(evaluations: Sequence[Evaluation]) -> list[str]:
    """Returns a distinct file stem for each evaluation, also where case does not count."""
    stems: list[str] = []
    taken: set[str] = set()
    for evaluation in evaluations:
        base = stem = re.sub(r"[^\w.-]+", "_", evaluation.title).strip("_.")
        number = 1
        while stem.casefold() in taken:
            number += 1
            stem = f"{base}_{number}"
        taken.add(stem.casefold())
        stems.append(stem)
    return stems


def _names_in(path: Path) -> set[str]:
    """Returns the names in a metrics.json; none if another program wrote the file."""
    try:
        names = [each["name"] for each in json.loads(path.read_text(encoding="utf-8"))]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return set()
    return {name for name in names if isinstance(name, str) and _STEM.fullmatch(name)}


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
        columns["events"] = strong.told.labelled.tolist()
        columns["events_told"] = strong.told.told.tolist()
        columns["event_f1"] = _or_empty(strong.told.f1)
        columns["false_alarms_per_hour"] = (strong.told.false_alarms / strong.told.hours).tolist()
    _write_csv(path, list(columns), zip(*columns.values(), strict=True))


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
