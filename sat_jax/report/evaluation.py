"""What came of evaluations, as files and tables for people (floor 2)."""

import csv
import dataclasses
import json
import math
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sat_jax.metrics.ranking import Metrics
from sat_jax.metrics.stability import Stability
from sat_jax.metrics.strong import OnsetDelays, SegmentPrecision
from sat_jax.report.files import naming_file, replacing_file

METRICS, TABLE, MISSING = "metrics.json", "table.md", "missing_clips.csv"
"""Names of files that `save_evaluations` writes."""


class MissingClip(NamedTuple):
    """A clip without scores, and why."""

    clip: str
    reason: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cost:
    """What one answer about one clip costs.

    Attributes:
      is_streaming: whether the past is remembered.
      tokens: new ones, or new/cached.
      peak_memory_mib: temporary memory and state, weights left out.
      gflops: of the network, two for each multiply-add.
      parameters: trainable numbers.
    """

    is_streaming: bool
    tokens: str
    peak_memory_mib: float
    gflops: float
    parameters: int


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class StrongMeasures:
    """How well answers say when something is heard.

    Attributes:
      num_clips: clips for which that is known.
      segments: average precision over single answers.
      onsets: how soon an event is noticed.
      psds1: in [0, 1]; None if the library that measures it is missing.
    """

    num_clips: int
    segments: SegmentPrecision
    onsets: OnsetDelays
    psds1: float | None

    def to_dict(self) -> dict[str, Any]:
        """The numbers that stand for the whole, as JSON-ready data."""
        return {
            "clips": self.num_clips,
            "segments": self.segments.num_segments,
            "segment_classes_without_positives": self.segments.classes_without_positives,
            "segment_mAP": self.segments.mean_average_precision,
            "PSDS1": self.psds1,
            "events": self.onsets.events,
            "events_detected": self.onsets.detected,
            "onset_delay_median": self.onsets.median,
            "onset_delay_mean": self.onsets.mean,
        }


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Evaluation:
    """How good a model is when it hears clips in one way, and how that was found out.

    Attributes:
      model: the model's name, for people.
      weights: where its weights came from.
      labels: [y] its class names.
      mode: "clip", "stream", "chunks" or "sliding".
      delay: seconds from one answer to the next; None in clip mode, which waits for the end.
      framing: stream mode only, how streams were cut into chunks; else None.
      warmup: stream mode only, what the cache held at a clip's start; else None.
      buffer: sliding mode only, seconds heard for an answer; else None.
      aggregation: how the answers of a clip became one.
      metrics: the measures of the clips that were scored.
      threshold: from which probability on a class counts as heard, for the next two.
      stability: how steady the answers within clips are; None in clip mode.
      strong: measures of the clips for which is known what is heard when; None if there are none.
      missing: clips without scores.
      cost: of an answer; None in clip mode.
      clips_per_second: scored by this run; None if all had scores before.
    """

    model: str
    weights: str
    labels: tuple[str, ...]
    mode: str
    delay: float | None
    framing: str | None
    warmup: str | None
    buffer: float | None
    aggregation: str
    metrics: Metrics
    threshold: float
    stability: Stability | None
    strong: StrongMeasures | None
    missing: tuple[MissingClip, ...]
    cost: Cost | None
    clips_per_second: float | None

    @property
    def way(self) -> str:
        """How clips were heard but for the delay, such as "stream, seamless"."""
        words = [self.mode]
        words += ["seamless"] if self.framing == "seamless" else []
        words += ["no warm-up"] if self.warmup == "none" else []
        words += [] if self.aggregation == "mean" else [self.aggregation]
        return ", ".join(words)

    @property
    def title(self) -> str:
        """What tells it from others, such as "SAT_T_2s, 2 s, stream"."""
        delay = [] if self.delay is None else [f"{self.delay:g} s"]
        return ", ".join([self.model, *delay, self.way])

    def to_dict(self) -> dict[str, Any]:
        """The numbers that stand for the whole, as JSON-ready data."""
        metrics = self.metrics
        return {
            "model": self.model,
            "weights": self.weights,
            "mode": self.mode,
            "delay": self.delay,
            "framing": self.framing,
            "warmup": self.warmup,
            "buffer": self.buffer,
            "aggregation": self.aggregation,
            "clips_scored": metrics.num_clips,
            "clips_missing": len(self.missing),
            "classes": len(self.labels),
            "classes_without_positives": metrics.classes_without_positives,
            "classes_without_negatives": metrics.classes_without_negatives,
            "mAP": metrics.mean_average_precision,
            "mAUC": metrics.mean_auc,
            "dprime": metrics.dprime,
            "lwlrap": metrics.lwlrap,
            "threshold": self.threshold,
            "stability": self._stability(),
            "strong": None if self.strong is None else self.strong.to_dict(),
            "cost": None if self.cost is None else dataclasses.asdict(self.cost),
            "clips_per_second": self.clips_per_second,
        }

    def _stability(self) -> dict[str, float | None] | None:
        if self.stability is None:
            return None
        return {
            "mean_squared_change": self.stability.mean_squared_change,
            "share_above_threshold": self.stability.mean_share_above,
        }


def make_folder(folder: str | Path) -> None:
    """Makes the folder that results will be written to, before hours of audio are scored.

    Raises:
      SatError: it can't be made.
    """
    with naming_file(folder):
        Path(folder).mkdir(parents=True, exist_ok=True)


def save_evaluations(folder: str | Path, evaluations: Sequence[Evaluation]) -> None:
    """Writes evaluations; files of these names are replaced, each whole or not at all.

    ``metrics.json`` is a list of `Evaluation.to_dict`; ``table.md`` the tables of `as_markdown`;
    ``missing_clips.csv`` has a row for each clip that one of them could not score; and
    ``per_class/*.csv`` a row a class, with empty fields for measures it does not have.

    Args:
      folder: where to; it exists.
      evaluations: at least one.

    Raises:
      SatError: the files can't be written.
    """
    path = Path(folder)
    make_folder(path / "per_class")
    for name, evaluation in zip(file_stems(evaluations), evaluations, strict=True):
        _write_classes(path / "per_class" / f"{name}.csv", evaluation)
    missing = dict.fromkeys(clip for each in evaluations for clip in each.missing)
    _write_csv(path / MISSING, MissingClip._fields, missing)
    numbers = [evaluation.to_dict() for evaluation in evaluations]
    _write_text(path / METRICS, json.dumps(numbers, indent=2, allow_nan=False))
    _write_text(path / TABLE, as_markdown(evaluations))


def file_stems(evaluations: Sequence[Evaluation]) -> list[str]:
    """A name for files of each evaluation, no two alike."""
    stems: list[str] = []
    for evaluation in evaluations:
        stem = re.sub(r"[^\w.-]+", "_", evaluation.title).strip("_.")
        taken = {other.casefold() for other in stems}
        numbered = (f"{stem}_{number}" for number in range(2, len(stems) + 3))
        stems.append(stem if stem.casefold() not in taken else _first_free(numbered, taken))
    return stems


def as_markdown(evaluations: Sequence[Evaluation]) -> str:
    """Tables for people, mAP and its like in percent: all measures; the published layout."""
    columns = [_measures(evaluation) for evaluation in evaluations]
    used = [name for name in columns[0] if any(row[name] for row in columns)]
    tables = [_table(used, [[row[name] for name in used] for row in columns])]
    priced = [evaluation for evaluation in evaluations if evaluation.cost]
    if priced:
        tables.append(_published_layout(priced))
    return "\n\n".join(tables)


def _measures(evaluation: Evaluation) -> dict[str, str]:
    metrics, stability, strong = evaluation.metrics, evaluation.stability, evaluation.strong
    classes = len(evaluation.labels)
    return {
        "model": evaluation.model,
        "mode": evaluation.way,
        "delay": "" if evaluation.delay is None else f"{evaluation.delay:g} s",
        "clips": f"{metrics.num_clips} of {metrics.num_clips + len(evaluation.missing)}",
        "classes": f"{classes - metrics.classes_without_positives} of {classes}",
        "mAP": _percent(metrics.mean_average_precision),
        "mAUC": _percent(metrics.mean_auc),
        "d'": _number(metrics.dprime),
        "lwlrap": _percent(metrics.lwlrap),
        "RMS change": _root(stability.mean_squared_change if stability else None),
        "above threshold": _percent(stability.mean_share_above if stability else None),
        "segment mAP": _percent(strong.segments.mean_average_precision if strong else None),
        "PSDS1": _number(strong.psds1 if strong else None),
        "onset delay s": _number(strong.onsets.median if strong else None),
        "events found": _percent(strong.onsets.share_detected if strong else None),
        "clips/s": "" if not evaluation.clips_per_second else f"{evaluation.clips_per_second:.3g}",
    }


def _published_layout(evaluations: Sequence[Evaluation]) -> str:
    """The columns of the published table, the longest delay first."""
    rows = []
    previous = None
    for evaluation in sorted(evaluations, key=lambda each: -(each.delay or 0.0)):
        cost, delay = evaluation.cost, evaluation.delay
        assert cost is not None
        rows.append(
            [
                "" if delay == previous else f"{delay:g} s delay",
                f"{evaluation.model} ({evaluation.mode})",
                "Y" if cost.is_streaming else "",
                cost.tokens,
                f"{cost.peak_memory_mib:.1f} M",
                f"{cost.gflops:.2f}",
                f"{100 * evaluation.metrics.mean_average_precision:.1f}",
            ]
        )
        previous = delay
    head = ["", "Model", "Streamable?", "#Token", "PeakMem", "GFlops", "mAP"]
    return _table(head, rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table that can be read as it is."""
    widths = [max(3, *map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = [head, ["-" * width for width in widths], *rows]
    return "\n".join(
        f"| {' | '.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))} |"
        for line in lines
    )


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


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.2f} %"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _root(square: float | None) -> str:
    return "" if square is None else f"{math.sqrt(square):.4f}"


def _or_empty(numbers: np.ndarray) -> list[float | str]:
    return ["" if math.isnan(number) else number for number in numbers.tolist()]


def _write_text(path: Path, text: str) -> None:
    with replacing_file(path) as temporary, naming_file(path):
        temporary.write_text(text + "\n", encoding="utf-8")


def _write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    with (
        replacing_file(path) as temporary,
        naming_file(path),
        temporary.open("w", encoding="utf-8", newline="", errors="backslashreplace") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)
