"""Measures a training step beside the same mathematics in eager PyTorch.

python -m benchmarks.train_step --models SAT_T_2s:8,SAT_B_2s:4 --threads 2

Prints a Markdown table and JSON, which --json writes to a file as well. See benchmarks/README.md.
"""

import argparse
import dataclasses
import functools
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measuring import (
    interleave,
    limit_threads,
    machine,
    markdown_table,
    ratio,
    spread,
    warn_if_busy,
)

PACKAGES = ("jax", "jaxlib", "flax", "optax", "torch", "numpy")
LEARNING_RATE, CLIP_NORM = 1e-4, 1.0
TOLERANCE = 1e-3
"""How far apart the rivals' gradients may be, over the largest value of each array."""
NUM_STEPS = 10**9
"""Steps in the run that is pretended: so many that the learning rate stays what it is."""

Call = Callable[[], float]
Arrays = Mapping[str, np.ndarray]


def main(argv: Sequence[str] | None = None) -> None:
    """Measures what the flags ask for."""
    options = parse_flags(argv)
    # Before JAX is imported: XLA makes as many threads as there are CPUs to run on.
    threads = limit_threads(options.threads)
    os.environ["JAX_PLATFORMS"] = "cpu"
    import jax
    import torch

    jax.config.update("jax_enable_compilation_cache", False)
    torch.set_num_threads(threads)
    setting = machine(PACKAGES, threads=threads)
    setting["glibc_tunables"] = os.environ.get("GLIBC_TUNABLES", "")
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
    """The command line's settings."""
    parser = argparse.ArgumentParser(description="Times a training step beside eager PyTorch.")
    add = functools.partial(parser.add_argument, metavar="X")
    models = [("SAT_T_2s", 8), ("SAT_B_2s", 4)]
    add("--models", type=_models, default=models, help="NAME:BATCH, with commas")
    add("--rounds", type=int, default=9, help="blocks of steps of each rival")
    add("--threads", type=int, default=None, help="CPUs to use; all by default")
    add("--seed", type=int, default=0, help="of the random weights and batches")
    add("--json", default=None, help="file for all numbers")
    return parser.parse_args(argv)


def _models(text: str) -> list[tuple[str, int]]:
    pairs = (part.split(":") for part in text.split(","))
    return [(name, int(batch_size)) for name, batch_size in pairs]


def measure(name: str, batch_size: int, *, rounds: int, seed: int = 0) -> dict[str, Any]:
    """All numbers of one model.

    Args:
      name: a streaming model that both sides know.
      batch_size: windows of two pieces.
      rounds: blocks of steps of each rival.
      seed: of the random weights and batches.

    Raises:
      RuntimeError: losses or gradients differ, so that comparing times means nothing.
    """
    import torch

    from benchmarks.torch_reference import MODELS, build

    torch.manual_seed(seed)
    weights = {key: x.numpy().copy() for key, x in build(name).state_dict().items()}
    rng, config = np.random.default_rng(seed), MODELS[name]
    samples = round(2 * config.target_length / 96 * 16_000)
    batch = {
        "waveform": (0.1 * rng.standard_normal((batch_size, samples))).astype(np.float32),
        "target": rng.random((batch_size, config.outputdim), np.float32),
    }
    difference = compare_gradients(
        jax_gradients(name, weights, batch), torch_gradients(name, weights, batch)
    )
    ours = compile_step(name, weights, batch)
    rivals = {
        "jax": ours.call,
        "torch": torch_step(name, weights, batch),
        "torch_fused": torch_step(name, weights, batch, fused=True),
    }
    losses = [[call() for call in rivals.values()] for _ in range(3)]
    times = interleave(rivals, rounds=rounds)
    speeds = {
        key: spread(times[key])
        | {"examples_per_s": batch_size / float(np.median(np.concatenate(times[key])))}
        for key in rivals
    }
    return {
        "model": name,
        "batch": batch_size,
        **speeds,
        # The other way round than in time: above 1 ours makes more steps a second.
        "speedup_over_torch": ratio(times["torch"], times["jax"]),
        "speedup_over_torch_fused": ratio(times["torch_fused"], times["jax"]),
        "gradient_difference": difference,
        "loss_difference": max(max(step) - min(step) for step in losses),
        "compile_s": ours.compile_seconds,
        "temporary_mb": ours.temporary_bytes / 1e6,
    }


def compare_gradients(ours: Arrays, theirs: Arrays) -> float:
    """The largest difference of gradients, over the largest value of each array.

    Raises:
      RuntimeError: it is more than `TOLERANCE`, or there are other arrays.
    """
    if ours.keys() != theirs.keys():
        raise RuntimeError(f"only one rival has {sorted(ours.keys() ^ theirs.keys())}")
    largest = max(
        float(np.abs(ours[name] - theirs[name]).max() / np.abs(theirs[name]).max())
        for name in theirs
    )
    if not largest <= TOLERANCE:
        raise RuntimeError(f"the rivals' gradients differ by {largest:.2g} of their largest value")
    return largest


def _run_config(name: str) -> Any:
    from sat_jax.models.registry import MODELS
    from sat_jax.training.config import OptimizerConfig, TrainConfig

    optimizer = OptimizerConfig(learning_rate=LEARNING_RATE, clip_norm=CLIP_NORM)
    return TrainConfig(model=MODELS[name], optimizer=optimizer, num_steps=NUM_STEPS)


def _variables(weights: Arrays) -> Any:
    from sat_jax.convert.names import from_torch, nest

    return nest(from_torch(dict(weights)))


def jax_gradients(name: str, weights: Arrays, batch: Arrays) -> dict[str, np.ndarray]:
    """Gradients of our loss by PyTorch's names; "loss" is the loss itself."""
    import jax
    from flax.traverse_util import flatten_dict

    from sat_jax.convert.names import to_torch
    from sat_jax.training.objectives import make_objective

    config, variables = _run_config(name), _variables(weights)
    loss_and_grads = jax.jit(jax.value_and_grad(make_objective(config), has_aux=True))
    (loss, _), grads = loss_and_grads(
        variables["params"], variables["batch_stats"], dict(batch), jax.random.key(0)
    )
    flat = flatten_dict({"params": grads}, sep="/")
    named = to_torch({key: np.asarray(x) for key, x in flat.items()}, config.model)
    return {"loss": np.asarray(loss), **named}


def torch_gradients(name: str, weights: Arrays, batch: Arrays) -> dict[str, np.ndarray]:
    """Gradients of PyTorch's loss; "loss" is the loss itself."""
    model = _torch_model(name, weights)
    loss = _torch_loss(model, *_torch_batch(batch))
    loss.backward()
    grads = {key: weight.grad.numpy() for key, weight in model.named_parameters()}
    return {"loss": loss.detach().numpy(), **grads}


@dataclasses.dataclass(frozen=True, kw_only=True)
class CompiledStep:
    """The training step of ours, compiled anew.

    Attributes:
      call: makes the next step and gives its loss.
      compile_seconds: tracing, lowering and compiling.
      temporary_bytes: what a step needs beside state and batch.
    """

    call: Call
    compile_seconds: float
    temporary_bytes: int


def compile_step(name: str, weights: Arrays, batch: Arrays) -> CompiledStep:
    """Compiles the step that `train.py` runs, on this machine's processor.

    Args:
      name: a model of the registry.
      weights: under PyTorch's published names.
      batch: waveforms [b, s] and targets [b, y].
    """
    import jax

    from sat_jax.sharding import make_mesh, to_devices
    from sat_jax.training.compile import compiled_step, make_state

    config, mesh, key = _run_config(name), make_mesh(), jax.random.key(0)
    state = jax.jit(functools.partial(make_state, config))(_variables(weights))
    step: Any = compiled_step(config, mesh)
    started = time.perf_counter()
    compiled = step.lower(state, to_devices(mesh, batch), key=key).compile()
    compile_seconds = time.perf_counter() - started

    def call() -> float:
        nonlocal state
        state, metrics = compiled(state, to_devices(mesh, batch), key=key)
        jax.block_until_ready(state)
        return float(metrics.loss)

    return CompiledStep(
        call=call,
        compile_seconds=compile_seconds,
        temporary_bytes=compiled.memory_analysis().temp_size_in_bytes,
    )


def torch_step(name: str, weights: Arrays, batch: Arrays, *, fused: bool = False) -> Call:
    """The call that makes the next step in eager PyTorch and gives its loss."""
    import torch

    model, arrays = _torch_model(name, weights), _torch_batch(batch)
    # None is PyTorch's own choice: on CPUs a loop over the weights.
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=LEARNING_RATE, weight_decay=0.0, fused=fused or None
    )

    def call() -> float:
        optimizer.zero_grad()
        loss = _torch_loss(model, *arrays)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
        optimizer.step()
        return float(loss.item())

    return call


def _torch_model(name: str, weights: Arrays) -> Any:
    import torch

    from benchmarks.torch_reference import build

    model = build(name).train()
    model.load_state_dict({key: torch.from_numpy(x.copy()) for key, x in weights.items()})
    return model


def _torch_batch(batch: Arrays) -> Any:
    import torch

    return [torch.from_numpy(batch[key]) for key in ("waveform", "target")]


def _torch_loss(model: Any, waveform: Any, target: Any) -> Any:
    """As published: one spectrogram of the window, its pieces in turn, their mean answer."""
    import torch.nn.functional as F

    return F.binary_cross_entropy(model.forward_clip(waveform), target)


def as_markdown(report: dict[str, Any]) -> str:
    """A line on the machine, and a table of the steps."""
    columns = [
        "model",
        "batch",
        "sat_jax ms (p95)",
        "PyTorch ms (p95)",
        "PyTorch, fused AdamW ms (p95)",
        "sat_jax examples/s",
        "speed over PyTorch (quartiles)",
        "over fused AdamW (quartiles)",
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
    times = [step[rival] for rival in ("jax", "torch", "torch_fused")]
    speedups = [step[f"speedup_over_{rival}"] for rival in ("torch", "torch_fused")]
    return [
        step["model"],
        str(step["batch"]),
        *(f"{t['median_ms']:.0f} ({t['p95_ms']:.0f})" for t in times),
        f"{step['jax']['examples_per_s']:.1f}",
        *(f"{s['median']:.2f} ({s['quartile_1']:.2f}-{s['quartile_3']:.2f})" for s in speedups),
        f"{step['compile_s']:.1f}",
        f"{step['temporary_mb']:.0f}",
        f"{step['gradient_difference']:.0e}",
    ]


if __name__ == "__main__":
    main()
