"""Markdown tables with the results of evaluations."""

import math
from collections.abc import Sequence

from sat_jax.evaluation.results import Evaluation


def as_markdown(evaluations: Sequence[Evaluation]) -> str:
    """Returns a table of all metrics and one in the published layout; mAP and shares in percent."""
    rows = [_metrics(evaluation) for evaluation in evaluations]
    used = [name for name in rows[0] if any(row[name] for row in rows)]
    tables = [_table(used, [[row[name] for name in used] for row in rows])]
    if any(evaluation.cost for evaluation in evaluations):
        tables.append(_published_layout(evaluations))
    return "\n\n".join(tables)


def _metrics(evaluation: Evaluation) -> dict[str, str]:
    metrics, stability, strong = evaluation.metrics, evaluation.stability, evaluation.strong
    classes, delay = len(evaluation.labels), evaluation.mode.delay
    return {
        "model": evaluation.model,
        "mode": evaluation.mode.label,
        "delay": "" if delay is None else f"{delay:g} s",
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
        "event F1": _percent(strong.told.macro_f1 if strong else None),
        "micro F1": _percent(strong.told.micro_f1 if strong else None),
        "event delay s": _number(strong.told.median_delay if strong else None),
        "false alarms/h": _number(strong.told.false_alarms_per_hour if strong else None),
        "clips/s": "" if not evaluation.clips_per_second else f"{evaluation.clips_per_second:.3g}",
    }


def _published_layout(evaluations: Sequence[Evaluation]) -> str:
    """Returns a table with the columns of the published one, longest delay first."""
    rows = []
    previous = None
    for evaluation in sorted(evaluations, key=lambda each: -(each.mode.delay or 0.0)):
        cost, mode = evaluation.cost, evaluation.mode
        if cost is None:
            continue
        rows.append(
            [
                "" if mode.delay == previous else f"{mode.delay:g} s delay",
                f"{evaluation.model} ({mode.name})",
                "Y" if cost.is_streaming else "",
                cost.tokens,
                f"{cost.peak_memory_mib:.1f} M",
                f"{cost.gflops:.2f}",
                f"{100 * evaluation.metrics.mean_average_precision:.1f}",
            ]
        )
        previous = mode.delay
    return _table(["", "Model", "Streamable?", "#Token", "PeakMem", "GFlops", "mAP"], rows)


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns a Markdown table whose columns also line up as plain text."""
    widths = [max(3, *map(len, column)) for column in zip(columns, *rows, strict=True)]
    lines = [columns, ["-" * width for width in widths], *rows]
    return "\n".join(
        f"| {' | '.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))} |"
        for line in lines
    )


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.2f} %"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _root(square: float | None) -> str:
    return "" if square is None else f"{math.sqrt(square):.4f}"
