"""Times a training step against the same computation in eager PyTorch.

python -m benchmarks.train_step --models SAT_T_2s:8,SAT_T_2s:32,SAT_B_2s:4 --threads 2

Prints a Markdown table and JSON, which --json writes to a file as well. See docs/performance.md.
"""

import argparse
import contextlib
import functools
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measuring import (
    interleave,
    limit_threads,
    machine,
    markdown_table,
    speedup_cells,
    speedups,
    spread,
    warn_if_busy,
)
from benchmarks.training_rivals import (
    Arrays,
    jax_gradients,
    jax_step,
    make_task,
    own_process,
    torch_gradients,
    torch_step,
)

PACKAGES = ("jax", "jaxlib", "flax", "optax", "torch", "numpy")
TOLERANCE = 1e-3
"""Largest difference of the rivals' gradients, relative to the largest value of each array."""

RIVALS = {
    "jax": jax_step,
    "torch": torch_step,
    "torch_fused": functools.partial(torch_step, fused=True),
    "torch_memory": functools.partial(torch_step, fused=True, keep_memory=True),
}
"""Makes each rival's step. PyTorch runs without and with the memory settings of `sat-jax train`."""


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the benchmark."""
    options = parse_flags(argv)
    # Before JAX is imported, since XLA starts one thread per available CPU.
    threads = limit_threads(options.threads)
    os.environ["JAX_PLATFORMS"] = "cpu"
    setting = machine(PACKAGES, threads=threads)
    warn_if_busy(setting)
    steps = [
        measure(name, batch_size, rounds=options.rounds, seed=options.seed)
        for name, batch_size in options.models
    ]
    report = {"machine": setting, "steps": steps, "load_after": os.getloadavg()[0]}
    if options.json:
        Path(options.json).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(as_markdown(report), json.dumps(report), sep="\n\n")


def parse_flags(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description="Times a training step against eager PyTorch.")
    add = functools.partial(parser.add_argument, metavar="X")
    models = [("SAT_T_2s", 8), ("SAT_T_2s", 32), ("SAT_B_2s", 4)]
    add("--models", type=parse_models, default=models, help="NAME:BATCH,NAME:BATCH")
    add("--rounds", type=parse_count, default=9, help="number of blocks of steps of each rival")
    add("--threads", type=int, default=None, help="number of CPUs; default: all")
    add("--seed", type=int, default=0, help="seed of weights and batches")
    add("--json", default=None, help="JSON file for all numbers")
    return parser.parse_args(argv)


def parse_models(text: str) -> list[tuple[str, int]]:
    """Returns names and batch sizes of NAME:BATCH,NAME:BATCH."""
    found = re.findall(r"([^:,]+):([1-9]\d*)(?:,|$)", text)
    if ",".join(map(":".join, found)) != text:
        raise argparse.ArgumentTypeError(f"{text} is not NAME:BATCH,NAME:BATCH")
    return [(name, int(batch_size)) for name, batch_size in found]


def parse_count(text: str) -> int:
    """Returns a whole number above 0."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text} is not a whole number above 0")
    return int(text)


def measure(name: str, batch_size: int, *, rounds: int, seed: int = 0) -> dict[str, Any]:
    """Returns all numbers of one model.

    Args:
      name: a streaming model of both sides.
      batch_size: number of windows of two chunks.
      rounds: number of blocks of steps of each rival.
      seed: seed of weights and batches.

    Raises:
      RuntimeError: gradients differ, so the rivals don't compute the same.
    """
    task = make_task(name, batch_size, seed)
    difference = compare_gradients(jax_gradients(task), torch_gradients(task))
    with contextlib.ExitStack() as stack:
        rivals = {
            rival: stack.enter_context(own_process(make, task)) for rival, make in RIVALS.items()
        }
        calls = {rival: made.call for rival, made in rivals.items()}
        losses = [[call() for call in calls.values()] for _ in range(3)]
        times = interleave(calls, rounds=rounds)
    speeds = {
        rival: spread(times[rival])
        | {"examples_per_s": batch_size / float(np.median(np.concatenate(times[rival])))}
        for rival in RIVALS
    }
    return {
        "model": name,
        "batch": batch_size,
        **speeds,
        **speedups(times),
        "gradient_difference": difference,
        "loss_difference": max(max(step) - min(step) for step in losses),
        **rivals["jax"].facts,
    }


def compare_gradients(ours: Arrays, theirs: Arrays) -> float:
    """Returns the largest difference of gradients, relative to the largest value of each array.

    Raises:
      RuntimeError: it is above `TOLERANCE`, or the arrays have other names.
    """
    if ours.keys() != theirs.keys():
        raise RuntimeError(f"only one rival has {sorted(ours.keys() ^ theirs.keys())}")
    # NumPy's maximum, since Python's ignores NaN.
    largest = float(
        np.max([np.abs(ours[name] - x).max() / np.abs(x).max() for name, x in theirs.items()])
    )
    if not largest <= TOLERANCE:
        raise RuntimeError(f"the rivals' gradients differ by {largest:.2g} of their largest value")
    return largest


def as_markdown(report: dict[str, Any]) -> str:
    """Returns a line about the machine and a table of the steps."""
    columns = [
        "model",
        "batch",
        "devices",
        "sat_jax ms (p95)",
        "PyTorch ms (p95)",
        "fused AdamW ms (p95)",
        "fused, our memory ms (p95)",
        "sat_jax examples/s",
        "speed over PyTorch (quartiles)",
        "over fused AdamW (quartiles)",
        "over fused, our memory (quartiles)",
        "compile s",
        "temporary MB",
        "gradient difference",
    ]
    setting = report["machine"]
    load = f"{setting['load_before']:.1f} before, {report['load_after']:.1f} after"
    versions = ", ".join(f"{name} {setting[name]}" for name in PACKAGES)
    return (
        f"{setting['cpu']}, {setting['threads']} of {setting['cores']} cores, load {load}; "
        f"Python {setting['python']}, {versions}\n\n"
        + markdown_table(columns, [_row(step) for step in report["steps"]])
    )


def _row(step: dict[str, Any]) -> list[str]:
    times = [step[rival] for rival in RIVALS]
    return [
        step["model"],
        str(step["batch"]),
        str(step["devices"]),
        *(f"{t['median_ms']:.0f} ({t['p95_ms']:.0f})" for t in times),
        f"{step['jax']['examples_per_s']:.1f}",
        *speedup_cells(step),
        f"{step['compile_s']:.1f}",
        f"{step['temporary_mb']:.0f}",
        f"{step['gradient_difference']:.0e}",
    ]


if __name__ == "__main__":
    main()
