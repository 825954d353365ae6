"""What came of evaluations, as tables for people."""

import math
from collections.abc import Sequence

from sat_jax.evaluation.results import Evaluation


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


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.2f} %"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _root(square: float | None) -> str:
    return "" if square is None else f"{math.sqrt(square):.4f}"
