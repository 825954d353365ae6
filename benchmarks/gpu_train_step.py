"""Times a training step on a GPU in bfloat16, against PyTorch.

python -m benchmarks.gpu_train_step --models SAT_T_2s:512,SAT_B_2s:256

JAX and PyTorch must both be installed with CUDA. Prints a Markdown table and JSON, which --json
also writes to a file, after each model. See docs/performance.md.
"""

import argparse
import contextlib
import dataclasses
import functools
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.gpu_rivals import PRODUCT_SIZE, STEPS_PER_CALL, jax_steps, product, torch_steps
from benchmarks.measuring import (
    interleave,
    machine,
    markdown_table,
    speedup_cells,
    speedups,
    spread,
    warn_if_busy,
)
from benchmarks.train_step import compare_gradients, parse_count, parse_models
from benchmarks.training_rivals import (
    Rival,
    Task,
    jax_gradients,
    make_task,
    own_process,
    torch_gradients,
)
from sat_jax.runtime.devices import usable_cores

PACKAGES = ("jax", "jaxlib", "flax", "optax", "torch", "numpy")
PEAKS = {"H100": 989.0, "H200": 989.0, "A100": 312.0}
"""TFLOP/s in bfloat16 from the data sheets, by a part of the GPU's name."""
LOSS_TOLERANCE = 0.02
"""Largest relative difference of losses after the first call: bfloat16 has 8 bits."""
# With "cuda" alone, JAX fails by an assertion on a machine without it.
ENVIRONMENT = {"JAX_PLATFORMS": "cuda,cpu", "XLA_PYTHON_CLIENT_MEM_FRACTION": "0.35"}
"""Environment of each rival. JAX must leave GPU memory for PyTorch."""

RIVALS = {
    "jax": jax_steps,
    "torch": torch_steps,
    "torch_compile": functools.partial(torch_steps, compiled=True),
}


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the benchmark."""
    options = parse_flags(argv)
    # The rivals run in their own processes; this one only compares gradients in float32.
    os.environ["JAX_PLATFORMS"] = "cpu"
    setting = machine(PACKAGES, threads=usable_cores())
    warn_if_busy(setting)
    with own_process(product, None, environment=ENVIRONMENT) as multiply:
        peak = find_peak(multiply, options.peak_tflops)
        report = {
            "machine": setting,
            "gpu": multiply.facts["gpu"],
            "peak_tflops": peak,
            "product_tflops": multiply.call(),
            "steps": [],
        }
    for name, batch_size in options.models:
        compare_gradients(*gradients(make_task(name, 2)))
        report["steps"].append(measure(name, batch_size, rounds=options.rounds, peak=peak))
        if options.json:
            Path(options.json).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(as_markdown(report), json.dumps(report), sep="\n\n")


def parse_flags(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description="Times a training step on a GPU against PyTorch.")
    add = functools.partial(parser.add_argument, metavar="X")
    models = [("SAT_T_2s", 512), ("SAT_B_2s", 256)]
    add("--models", type=parse_models, default=models, help="NAME:BATCH,NAME:BATCH")
    add("--rounds", type=parse_count, default=7, help="number of blocks of steps of each rival")
    add(
        "--peak_tflops",
        type=float,
        default=None,
        help="bfloat16 speed of a GPU that is not in the table",
    )
    add("--json", default=None, help="JSON file for all numbers")
    return parser.parse_args(argv)


def find_peak(multiply: Rival, given: float | None) -> float:
    """Returns the TFLOP/s of the GPU from its data sheet.

    Args:
      multiply: a `product`.
      given: the value of --peak_tflops.

    Raises:
      SystemExit: JAX or PyTorch finds no GPU, or `PEAKS` does not list it.
    """
    gpu = multiply.facts["gpu"]
    if not gpu or not multiply.facts["torch"]:
        raise SystemExit(f"{'PyTorch' if gpu else 'JAX'} sees no CUDA GPU: install it with CUDA")
    known = [given] if given else [peak for name, peak in PEAKS.items() if name in gpu]
    if not known:
        raise SystemExit(f"{gpu} is not in the table: give its bfloat16 speed by --peak_tflops")
    return known[0]


def gradients(task: Task) -> tuple[Any, Any]:
    """Returns our gradients and PyTorch's, on the CPU in float32."""
    return jax_gradients(task), torch_gradients(task)


def measure(name: str, batch_size: int, *, rounds: int, peak: float) -> dict[str, Any]:
    """Returns all numbers of one model.

    Args:
      name: a streaming model of both sides.
      batch_size: number of windows of two chunks.
      rounds: number of blocks of steps of each rival.
      peak: TFLOP/s of the GPU from its data sheet.

    Raises:
      RuntimeError: the losses differ, so the rivals don't compute the same.
    """
    task = make_task(name, batch_size)
    task = dataclasses.replace(task, ours=dataclasses.replace(task.ours, dtype="bfloat16"))
    with contextlib.ExitStack() as stack:
        rivals = {
            rival: stack.enter_context(own_process(make, task, environment=ENVIRONMENT))
            for rival, make in RIVALS.items()
        }
        losses = {rival: made.call() for rival, made in rivals.items()}
        if not np.ptp(list(losses.values())) <= LOSS_TOLERANCE * losses["torch"]:
            raise RuntimeError(f"the rivals' losses after {STEPS_PER_CALL} steps are {losses}")
        times = interleave({rival: made.call for rival, made in rivals.items()}, rounds=rounds)
    steps = {rival: [block / STEPS_PER_CALL for block in times[rival]] for rival in RIVALS}
    flops = needed_flops(task.ours) * batch_size
    return {
        "model": name,
        "batch": batch_size,
        "gflop_per_example": flops / batch_size / 1e9,
        **{
            rival: spread(times) | _rates(times, batch_size, flops, peak)
            for rival, times in steps.items()
        },
        **speedups(steps),
        "losses": losses,
        "facts": {rival: dict(made.facts) for rival, made in rivals.items()},
    }


def _rates(times: list[np.ndarray], batch_size: int, flops: float, peak: float) -> dict[str, float]:
    seconds = float(np.median(np.concatenate(times)))
    return {"examples_per_s": batch_size / seconds, "utilisation": flops / seconds / (1e12 * peak)}


def needed_flops(config: Any) -> float:
    """Returns the operations of training on one window of two chunks, without the front end.

    The forward pass has two operations per multiply-add, and the gradients need twice as many. The
    first chunk has no past. Keys and values of past tokens count once, when they are new.
    """
    from sat_jax.profile.costs import count_multiply_adds
    from sat_jax.streaming.framing import make_framing

    counted = count_multiply_adds(config, make_framing(config, "chunk"))
    forward = 2 * (counted.linear + counted.attention_new) + counted.attention_cached
    return 3 * 2 * forward


def as_markdown(report: dict[str, Any]) -> str:
    """Returns a line about the machine and a table of the steps."""
    columns = [
        "model",
        "batch",
        "sat_jax ms (p95)",
        "PyTorch ms (p95)",
        "torch.compile ms (p95)",
        "sat_jax examples/s",
        "sat_jax utilisation",
        "PyTorch",
        "torch.compile",
        "speed over PyTorch (quartiles)",
        "over torch.compile (quartiles)",
        "compile s",
        "temporary MB",
    ]
    setting = report["machine"]
    versions = ", ".join(f"{name} {setting[name]}" for name in PACKAGES)
    return (
        f"{report['gpu']}, {report['peak_tflops']:.0f} TFLOP/s by its data sheet, "
        f"{report['product_tflops']:.0f} in a product of {PRODUCT_SIZE} squared; load "
        f"{setting['load_before']:.1f} before; {versions}\n\n"
        + markdown_table(columns, [_row(step) for step in report["steps"]])
    )


def _row(step: dict[str, Any]) -> list[str]:
    times = [step[rival] for rival in RIVALS]
    facts = step["facts"]["jax"]
    return [
        step["model"],
        str(step["batch"]),
        *(f"{t['median_ms']:.1f} ({t['p95_ms']:.1f})" for t in times),
        f"{step['jax']['examples_per_s']:.0f}",
        *(f"{t['utilisation']:.0%}" for t in times),
        *speedup_cells(step),
        f"{facts['compile_s']:.0f}",
        f"{facts['temporary_mb']:.0f}",
    ]


if __name__ == "__main__":
    main()
