"""Measures exported streaming steps: against XLA's and PyTorch's, their size, start and memory.

python -m benchmarks.export_step --models SAT_XS_2s,SAT_T_2s --threads 2

Weights are random. "start" is a whole process that tags one chunk: run.py of the exported folder,
and `sat-jax tag` beside it. Prints Markdown tables and JSON; --json also writes the JSON to a file.
"""

import argparse
import functools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
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
from benchmarks.rivals import torch_step

PACKAGES = ("jax", "onnxruntime", "ai-edge-litert", "torch", "numpy")
EXPORTS = tuple(
    (kind, precision) for kind in ("onnx", "litert") for precision in ("float32", "float16", "int8")
)


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the benchmark."""
    options = parse_flags(argv)
    threads = limit_threads(options.threads)  # Before JAX is imported.
    os.environ["JAX_PLATFORMS"] = "cpu"
    import torch

    from sat_jax.find_model import random_checkpoint
    from sat_jax.weights.checkpoint import save_checkpoint

    torch.set_num_threads(threads)
    setting = machine(PACKAGES, threads=threads)
    warn_if_busy(setting)
    report: dict[str, Any] = {"machine": setting, "steps": [], "starts": []}
    for name in options.models:
        with tempfile.TemporaryDirectory() as folder:
            folders = {"sat_jax": Path(folder) / "model"}
            save_checkpoint(folders["sat_jax"], random_checkpoint(name))
            folders |= export_all(folders["sat_jax"], Path(folder))
            report["steps"] += measure_steps(name, folders, threads, rounds=options.rounds)
            report["starts"] += measure_starts(name, folders, threads, rounds=options.starts)
    if options.json:
        Path(options.json).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(as_markdown(report), json.dumps(report), sep="\n\n")


def parse_flags(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description="Measures exported streaming steps.")
    add = functools.partial(parser.add_argument, metavar="X")
    names = ["SAT_XS_2s", "SAT_T_2s", "SAT_S_2s", "SAT_B_2s"]
    add("--models", type=lambda text: text.split(","), default=names, help="of models, with commas")
    add("--rounds", type=int, default=11, help="blocks of steps of each rival")
    add("--starts", type=int, default=5, help="starts of each rival")
    add("--threads", type=int, default=None, help="CPUs to use; all by default")
    add("--json", default=None, help="file for all numbers")
    return parser.parse_args(argv)


def export_all(model: str | Path, folder: Path) -> dict[str, Path]:
    """Exports a model in all formats and precisions; returns their folders."""
    from sat_jax.commands import export
    from tests.support.programs import run_program

    folders = {}
    for kind, precision in EXPORTS:
        out = folders[f"{kind} {precision}"] = folder / f"{kind}_{precision}"
        flags = (f"--model={model}", f"--format={kind}", f"--precision={precision}")
        if run_program(export.PROGRAM, "export", *flags, "--nocheck", str(out)):
            raise RuntimeError(f"cannot export {model} to {kind}")
    return folders


def measure_steps(
    name: str, folders: dict[str, Path], threads: int, *, rounds: int
) -> list[dict[str, Any]]:
    """Times a step of one stream: XLA's, each export's, and the published form in PyTorch."""
    import jax

    from sat_jax import Tagger
    from sat_jax.export.runner.run import Step
    from tests.reference.torch_model import MODELS as IN_TORCH
    from tests.reference.torch_model import build

    tagger = Tagger.load(folders["sat_jax"])
    rng = np.random.default_rng(0)
    window = (0.1 * rng.standard_normal((1, tagger.framing.window))).astype(np.float32)
    state = tagger.init().model
    model = tagger.streams

    def xla() -> None:
        jax.block_until_ready(model.step(tagger.variables, window, state))

    rivals: dict[str, Callable[[], Any]] = {"xla": xla}
    for export, folder in folders.items():
        if export != "sat_jax":
            step = Step(folder, threads)
            rivals[export] = functools.partial(step, window, step.new_state())
    if name in IN_TORCH:
        rivals["torch"] = torch_step(build(name).eval(), window)
    times = interleave(rivals, rounds=rounds)
    sizes = {
        export: sum(path.stat().st_size for path in folder.glob("model.*")) / 1e6
        for export, folder in folders.items()
    }
    return [
        {
            "model": name,
            "step": rival,
            "megabytes": sizes.get(rival),
            **spread(times[rival]),
            "ratio_to_xla": ratio(times[rival], times["xla"]),
        }
        for rival in rivals
    ]


def measure_starts(
    name: str, folders: dict[str, Path], threads: int, *, rounds: int
) -> list[dict[str, Any]]:
    """Measures seconds and peak memory of processes that tag one chunk."""
    sound = folders["sat_jax"].parent / "sound.wav"
    _write_noise(sound)
    commands = {"sat_jax": [sys.executable, "-m", "sat_jax", "tag", "-m"]}
    commands["sat_jax"] += [str(folders["sat_jax"]), str(sound)]
    for export in ("onnx float16", "litert float16"):
        program = str(folders[export] / "run.py")
        commands[export] = [sys.executable, program, "--threads", str(threads), str(sound)]
    found: dict[str, list[tuple[float, float]]] = {each: [] for each in commands}
    for _ in range(rounds):
        for each, command in commands.items():
            found[each].append(_run(command))
    return [
        {
            "model": name,
            "program": each,
            "seconds": float(np.median([seconds for seconds, _ in runs])),
            "peak_mb": float(np.median([megabytes for _, megabytes in runs])),
        }
        for each, runs in found.items()
    ]


def _write_noise(path: Path) -> None:
    import soundfile

    noise = 0.1 * np.random.default_rng(0).standard_normal(32_000)
    soundfile.write(path, noise, 16_000, subtype="PCM_16")


# In a process of its own: a child's peak begins with the memory of the process that starts it.
_LAUNCHER = """
import json, resource, subprocess, sys, time
began = time.perf_counter()
quiet = dict.fromkeys(("stdout", "stderr"), subprocess.DEVNULL)
subprocess.run(sys.argv[1:], check=True, **quiet)
seconds = time.perf_counter() - began
print(json.dumps([seconds, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e3]))
"""


def _run(command: Sequence[str]) -> tuple[float, float]:
    """Runs a process; returns its seconds and its peak of memory in MB."""
    launcher = [sys.executable, "-c", _LAUNCHER, *command]
    done = subprocess.run(launcher, check=True, stdout=subprocess.PIPE)
    seconds, megabytes = json.loads(done.stdout)
    return seconds, megabytes


def as_markdown(report: dict[str, Any]) -> str:
    """Formats both tables."""
    steps = [
        [
            row["model"],
            row["step"],
            "-" if row["megabytes"] is None else f"{row['megabytes']:.1f}",
            f"{row['median_ms']:.2f}",
            "{median:.2f} ({quartile_1:.2f}-{quartile_3:.2f})".format(**row["ratio_to_xla"]),
        ]
        for row in report["steps"]
    ]
    starts = [
        [row["model"], row["program"], f"{row['seconds']:.2f}", f"{row['peak_mb']:.0f}"]
        for row in report["starts"]
    ]
    return "\n\n".join(
        [
            markdown_table(["model", "step", "MB", "ms", "of XLA's time"], steps),
            markdown_table(["model", "program", "start, s", "peak, MB"], starts),
        ]
    )


if __name__ == "__main__":
    main()
