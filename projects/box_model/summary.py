"""What came of a recipe: losses, measures and times of its stages."""

import csv
import os
import platform
import statistics
from pathlib import Path
from typing import Any

from projects.box_model.stage_log import StageLog, read_json, read_json_lines, write_json
from sat_jax.errors import SatError
from sat_jax.runtime.files import atomic_write

_AVERAGED = 10
"""Steps at either end of a stage whose mean loss is told: that of a single step is noise."""


def first_clip_of(table: Path, label: str) -> Path:
    """The first recording in a table of clips that has this label and no other.

    Raises:
      SatError: there is none.
    """
    with table.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row["labels"] == label:
                return table.parent / row["file"]
    raise SatError(f"{table} has no clip of {label!r}: make it anew")


def write_summary(work: Path) -> str:
    """Writes ``results.json`` and ``results.md`` of a run that is through; returns the latter."""
    results = {
        "cores": os.cpu_count(),
        "processor": _processor(),
        "stages": {name: _losses(work / name / "log.jsonl") for name in ("mae", "vit", "sat")},
        "seconds": StageLog(work).seconds(),
        "held_out": {
            path.parent.name: result
            for path in work.glob("measured/*/metrics.json")
            for result in read_json(path)  # One model, heard in one way.
        },
    }
    write_json(work / "results.json", results)
    text = _markdown(results)
    with atomic_write(work / "results.md") as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
    return text


def _losses(log: Path) -> dict[str, float]:
    lines = read_json_lines(log)
    losses = [line["loss"] for line in lines if "loss" in line]
    return {
        "steps": lines[-1]["step"],
        "first_loss": statistics.mean(losses[:_AVERAGED]),
        "last_loss": statistics.mean(losses[-_AVERAGED:]),
    }


def _markdown(results: dict[str, Any]) -> str:
    rows = [
        "| stage | steps | loss, first | last | seconds | CPU seconds |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for name, time in results["seconds"].items():
        loss = results["stages"].get(name)
        told = (
            f"{loss['steps']} | {loss['first_loss']:.4f} | {loss['last_loss']:.4f}"
            if loss
            else " | | "
        )
        rows.append(f"| {name} | {told} | {time['wall']:.0f} | {time['cpu']:.0f} |")
    wall, cpu = (sum(t[kind] for t in results["seconds"].values()) for kind in ("wall", "cpu"))
    rows.append(f"| all |  | | | {wall:.0f} | {cpu:.0f} |")
    rows += [
        "",
        "| held-out clips | clips | classes | mAP | mAUC | lwlrap |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for name, told in sorted(results["held_out"].items(), key=lambda item: item[1]["mAP"]):
        classes = told["classes"] - told["classes_without_positives"]
        numbers = " | ".join(f"{told[key]:.3f}" for key in ("mAP", "mAUC", "lwlrap"))
        rows.append(f"| {name} | {told['clips_scored']} | {classes} | {numbers} |")
    rows += ["", f"{results['cores']} cores: {results['processor']}"]
    return "\n".join(rows)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
