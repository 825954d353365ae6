"""What came of an evaluation, as files and for people (floor 2)."""

import csv
import dataclasses
import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sat_jax.metrics.ranking import Metrics
from sat_jax.report.files import naming_file, replacing_file

METRICS, PER_CLASS, MISSING = "metrics.json", "per_class.csv", "missing_clips.csv"
"""Names of the files that `save_evaluation` writes."""


class MissingClip(NamedTuple):
    """A clip without scores, and why."""

    clip: str
    reason: str


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Evaluation:
    """How good a model is, and how that was found out.

    Attributes:
      model: the model's name, for people.
      weights: where its weights came from.
      labels: [y] its class names.
      mode: "clip", "stream" or "chunks".
      delay: seconds heard at a time; None in clip mode, which waits for the end.
      framing: how streams were cut into chunks; None in clip mode.
      aggregation: how the scores of a clip's chunks became one.
      warmup: what the cache held at a clip's start; None but in stream mode.
      metrics: the measures of the clips that were scored.
      missing: the others.
    """

    model: str
    weights: str
    labels: tuple[str, ...]
    mode: str
    delay: float | None
    framing: str | None
    aggregation: str
    warmup: str | None
    metrics: Metrics
    missing: tuple[MissingClip, ...]

    def to_dict(self) -> dict[str, Any]:
        """The numbers that stand for the whole, as JSON-ready data."""
        metrics = self.metrics
        return {
            "model": self.model,
            "weights": self.weights,
            "mode": self.mode,
            "delay": self.delay,
            "framing": self.framing,
            "aggregation": self.aggregation,
            "warmup": self.warmup,
            "clips_scored": metrics.num_clips,
            "clips_missing": len(self.missing),
            "classes": len(self.labels),
            "classes_without_positives": metrics.classes_without_positives,
            "classes_without_negatives": metrics.classes_without_negatives,
            "mAP": metrics.mean_average_precision,
            "mAUC": metrics.mean_auc,
            "dprime": metrics.dprime,
            "lwlrap": metrics.lwlrap,
        }


def make_folder(folder: str | Path) -> None:
    """Makes the folder that `save_evaluation` will write to, before hours of audio are scored.

    Raises:
      SatError: it can't be made.
    """
    with naming_file(folder):
        Path(folder).mkdir(parents=True, exist_ok=True)


def save_evaluation(folder: str | Path, evaluation: Evaluation) -> None:
    """Writes an evaluation; files of these names are replaced, each whole or not at all.

    ``per_class.csv`` has a row a class, with empty fields for measures it does not have;
    ``missing_clips.csv`` a row for each clip without scores; ``metrics.json`` is
    `Evaluation.to_dict`.

    Args:
      folder: where to; it exists.
      evaluation: what to write.

    Raises:
      SatError: the files can't be written.
    """
    path, metrics = Path(folder), evaluation.metrics
    measures = zip(
        evaluation.labels,
        metrics.positives.tolist(),
        map(_or_empty, metrics.average_precision.tolist()),
        map(_or_empty, metrics.roc_auc.tolist()),
        strict=True,
    )
    columns = ("index", "label", "positives", "average_precision", "roc_auc")
    _write_csv(path / PER_CLASS, columns, ((i, *row) for i, row in enumerate(measures)))
    _write_csv(path / MISSING, MissingClip._fields, evaluation.missing)
    with replacing_file(path / METRICS) as temporary, naming_file(path / METRICS):
        text = json.dumps(evaluation.to_dict(), indent=2, allow_nan=False)
        temporary.write_text(text + "\n", encoding="utf-8")


def markdown_table(evaluation: Evaluation) -> str:
    """The measures as a Markdown table for people, mAP and its like in percent."""
    metrics, missing = evaluation.metrics, len(evaluation.missing)
    classes = len(evaluation.labels)
    cells = {
        "model": evaluation.model,
        "mode": evaluation.mode,
        "delay": "" if evaluation.delay is None else f"{evaluation.delay:.4g} s",
        "clips": f"{metrics.num_clips} of {metrics.num_clips + missing}",
        "classes": f"{classes - metrics.classes_without_positives} of {classes}",
        "mAP": _percent(metrics.mean_average_precision),
        "mAUC": _percent(metrics.mean_auc),
        "d'": "" if metrics.dprime is None else f"{metrics.dprime:.3f}",
        "lwlrap": _percent(metrics.lwlrap),
    }
    widths = [max(len(head), len(cell)) for head, cell in cells.items()]
    rows = (cells.keys(), ("-" * width for width in widths), cells.values())
    return "\n".join(
        f"| {' | '.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))} |"
        for row in rows
    )


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.2f} %"


def _or_empty(number: float) -> float | str:
    return "" if math.isnan(number) else number


def _write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    with (
        replacing_file(path) as temporary,
        naming_file(path),
        temporary.open("w", encoding="utf-8", newline="", errors="backslashreplace") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)
