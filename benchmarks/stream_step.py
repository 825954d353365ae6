"""Measures a streaming step against the same computation in eager PyTorch.

python -m benchmarks.stream_step --models SAT_T_2s,SAT_B_2s --batch 1,16 --threads 2

Prints a Markdown table and JSON; --json also writes the JSON to a file. See docs/performance.md.
"""

import argparse
import functools
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.measuring import (
    interleave,
    limit_threads,
    machine,
    markdown_table,
    ratio,
    spread,
    time_calls,
    warn_if_busy,
)
from benchmarks.rivals import compile_step, torch_step

if TYPE_CHECKING:
    import jax

PACKAGES = ("jax", "jaxlib", "flax", "torch", "numpy")
PEAK_SIZES = (1024, 2048)
TOLERANCE = 1e-4
"""Largest allowed difference between the rivals' probabilities."""


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the benchmark."""
    options = parse_flags(argv)
    # Before JAX is imported, since XLA then makes as many threads as there are CPUs.
    threads = limit_threads(options.threads)
    os.environ["JAX_PLATFORMS"] = "cpu"
    import jax
    import torch

    jax.config.update("jax_enable_compilation_cache", False)
    torch.set_num_threads(threads)
    setting = machine(PACKAGES, threads=threads)
    warn_if_busy(setting)
    setting["matmul_peak_gflops"] = peak = matmul_peak()
    report: dict[str, Any] = {"machine": setting, "steps": []}
    for name in options.models:
        for batch in options.batch:
            report["steps"].append(
                measure(name, batch, rounds=options.rounds, peak=peak, seed=options.seed)
            )
    if options.json:
        Path(options.json).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(as_markdown(report), json.dumps(report), sep="\n\n")


def parse_flags(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description="Times a streaming step against eager PyTorch.")
    add = functools.partial(parser.add_argument, metavar="X")
    names = ["SAT_T_2s", "SAT_S_2s", "SAT_B_2s"]
    add("--models", type=lambda text: text.split(","), default=names, help="of models, with commas")
    add("--batch", type=_numbers, default=[1, 16], help="numbers of streams, with commas")
    add("--rounds", type=int, default=15, help="blocks of steps of each rival")
    add("--threads", type=int, default=None, help="CPUs to use; all by default")
    add("--seed", type=int, default=0, help="of the random weights and samples")
    add("--json", default=None, help="file for all numbers")
    return parser.parse_args(argv)


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def matmul_peak() -> float:
    """Returns the highest speed of a float32 matrix product of JAX, in GFLOP/s."""
    import jax
    import jax.numpy as jnp

    product = jax.jit(jnp.matmul)
    speeds = []
    for size in PEAK_SIZES:
        square = jax.random.normal(jax.random.key(0), (size, size))
        product(square, square).block_until_ready()
        call = functools.partial(_multiply, product, square)
        speeds.append(2e-9 * size**3 / float(np.min(time_calls(call, 10))))
    return max(speeds)


def _multiply(product: Callable[..., "jax.Array"], square: "jax.Array") -> None:
    product(square, square).block_until_ready()


def measure(name: str, batch: int, *, rounds: int, peak: float, seed: int = 0) -> dict[str, Any]:
    """Measures one model at one batch size.

    Args:
      name: of a streaming model that both have.
      batch: number of streams.
      rounds: blocks of steps of each rival.
      peak: GFLOP/s of the machine, see `matmul_peak`.
      seed: of the random weights and samples.

    Raises:
      RuntimeError: the rivals' probabilities differ.
    """
    import torch

    from tests.reference.torch_model import build

    torch.manual_seed(seed)
    model = build(name).eval()
    weights = model.state_dict()
    with_kv = build(name, kv_cache=True).eval()
    with_kv.load_state_dict(weights)
    ours, variables = compile_step(name, {key: w.numpy() for key, w in weights.items()}, batch)
    rng = np.random.default_rng(seed)
    chunk = (0.1 * rng.standard_normal((batch, ours.framing.hop))).astype(np.float32)
    rivals = {
        "jax": ours.repeat(variables, chunk, warmup="silence"),
        "torch_kv": torch_step(with_kv, chunk),
        "torch_published": torch_step(model, chunk),
    }
    difference = largest_difference(rivals)
    times = interleave(rivals, rounds=rounds)
    result: dict[str, Any] = {key: spread(times[key]) for key in rivals}
    return {
        "model": name,
        "batch": batch,
        **result,
        "ratio_to_torch_kv": ratio(times["jax"], times["torch_kv"]),
        "ratio_to_torch_published": ratio(times["jax"], times["torch_published"]),
        "max_difference": difference,
        "compile_s": ours.compile_seconds,
        "temporary_mb": ours.temporary_bytes / 1e6,
        "matmul_gflop": ours.matmul_flops / 1e9,
        "xla_gflop": ours.xla_flops / 1e9,
        "share_of_peak": ours.matmul_flops / 1e6 / result["jax"]["median_ms"] / peak,
    }


def largest_difference(rivals: dict[str, Callable[[], np.ndarray]], steps: int = 3) -> float:
    """Returns the largest difference of the rivals' probabilities over some steps.

    Raises:
      RuntimeError: it is larger than `TOLERANCE`.
    """
    largest = 0.0
    for _ in range(steps):
        first, *others = (call() for call in rivals.values())
        largest = max(largest, *(float(np.abs(first - other).max()) for other in others))
    if not largest <= TOLERANCE:
        raise RuntimeError(f"the rivals' probabilities differ by {largest:.2g}")
    return largest


def as_markdown(report: dict[str, Any]) -> str:
    """Formats the report: a line on the machine and a table."""
    columns = [
        "model",
        "batch",
        "sat_jax ms (p95)",
        "PyTorch K/V ms (p95)",
        "PyTorch published ms (p95)",
        "ratio to K/V (quartiles)",
        "ratio to published (quartiles)",
        "compile s",
        "temporary MB",
        "GFLOP (XLA's count)",
        "share of peak",
        "largest difference",
    ]
    setting = report["machine"]
    load = "" if setting["load_before"] is None else f", load before {setting['load_before']:.1f}"
    versions = ", ".join(f"{name} {setting[name]}" for name in PACKAGES)
    return (
        f"{setting['cpu']}, {setting['threads']} of {setting['cores']} cores{load}, "
        f"{setting['matmul_peak_gflops']:.0f} GFLOP/s; Python {setting['python']}, {versions}\n\n"
        + markdown_table(columns, [_row(step) for step in report["steps"]])
    )


def _row(step: dict[str, Any]) -> list[str]:
    times = [step[rival] for rival in ("jax", "torch_kv", "torch_published")]
    ratios = [step[f"ratio_to_{rival}"] for rival in ("torch_kv", "torch_published")]
    return [
        step["model"],
        str(step["batch"]),
        *(f"{t['median_ms']:.1f} ({t['p95_ms']:.1f})" for t in times),
        *(f"{r['median']:.2f} ({r['quartile_1']:.2f}-{r['quartile_3']:.2f})" for r in ratios),
        f"{step['compile_s']:.1f}",
        f"{step['temporary_mb']:.1f}",
        f"{step['matmul_gflop']:.2f} ({step['xla_gflop']:.2f})",
        f"{step['share_of_peak']:.0%}",
        f"{step['max_difference']:.0e}",
    ]


if __name__ == "__main__":
    main()
