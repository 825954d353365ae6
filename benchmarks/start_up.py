"""Measures the time of `infer.py` for a short recording, against the imports that it needs.

python -m benchmarks.start_up --pairs 7

Compiled programs are on disk, as from the second run on. See docs/performance.md.
"""

import argparse
import functools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.measuring import (
    Times,
    limit_threads,
    machine,
    markdown_table,
    ratio,
    spread,
    time_calls,
    warn_if_busy,
)

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("jax", "flax", "orbax-checkpoint", "numpy")
IMPORTS = "import jax, flax, orbax.checkpoint"


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the benchmark."""
    options = parse_flags(argv)
    threads = limit_threads(options.threads)
    setting = machine(PACKAGES, threads=threads)
    warn_if_busy(setting)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder) / "model"
        save_random_model(options.model, checkpoint)
        infer = [str(ROOT / "infer.py"), "-m", str(checkpoint), options.audio]
        result = measure(infer, ["-c", IMPORTS], pairs=options.pairs, cache=Path(folder) / "cache")
    report = {"machine": setting, "model": options.model, "audio": options.audio} | result
    if options.json:
        Path(options.json).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(as_markdown(report), json.dumps(report), sep="\n\n")


def parse_flags(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description="Times the start of infer.py.")
    add = functools.partial(parser.add_argument, metavar="X")
    add("--model", default="SAT_T_2s", help="a model's name; its weights are random")
    add("--audio", default=str(ROOT / "tests" / "golden" / "clip.wav"), help="the recording")
    add("--pairs", type=int, default=7, help="runs of each program, in turns")
    add("--threads", type=int, default=None, help="CPUs to use; all by default")
    add("--json", default=None, help="file for all numbers")
    return parser.parse_args(argv)


def save_random_model(name: str, folder: Path) -> None:
    """Writes a checkpoint folder of a named model with random weights."""
    from sat_jax.find_model import random_checkpoint
    from sat_jax.weights.checkpoint import save_checkpoint

    save_checkpoint(folder, random_checkpoint(name))


def measure(infer: list[str], imports: list[str], *, pairs: int, cache: Path) -> dict[str, Any]:
    """Times two Python programs in turns.

    Args:
      infer: arguments of Python to tag the recording.
      imports: arguments of Python to import the libraries only.
      pairs: measured runs of each program; one run before fills the disk caches.
      cache: folder for compiled programs.

    Raises:
      subprocess.CalledProcessError: a program failed; its messages are on standard error.
    """
    environment = os.environ | {"SAT_JAX_CACHE": str(cache), "JAX_PLATFORMS": "cpu"}

    def call(arguments: list[str]) -> None:
        subprocess.run(
            [sys.executable, *arguments],
            env=environment,
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            check=True,
        )

    programs = {
        "infer": functools.partial(call, infer),
        "imports": functools.partial(call, imports),
    }
    first_run = time_calls(programs["infer"], 1)
    programs["imports"]()
    times: Times = {name: [] for name in programs}
    for _ in range(pairs):
        for name, program in programs.items():
            times[name].append(time_calls(program, 1))
    return {
        "first_run_ms": 1e3 * float(first_run[0]),
        "infer": spread(times["infer"]),
        "imports": spread(times["imports"]),
        "ratio": ratio(times["infer"], times["imports"]),
    }


def as_markdown(report: dict[str, Any]) -> str:
    """Formats the report: a line on the machine and a table."""
    setting, share = report["machine"], report["ratio"]
    columns = ["model", "first run s", "infer.py s", "imports s", "ratio (quartiles)"]
    row = [
        report["model"],
        f"{report['first_run_ms'] / 1e3:.2f}",
        f"{report['infer']['median_ms'] / 1e3:.2f}",
        f"{report['imports']['median_ms'] / 1e3:.2f}",
        f"{share['median']:.2f} ({share['quartile_1']:.2f}-{share['quartile_3']:.2f})",
    ]
    versions = ", ".join(f"{name} {setting[name]}" for name in PACKAGES)
    return (
        f"{setting['cpu']}, {setting['threads']} of {setting['cores']} cores; "
        f"Python {setting['python']}, {versions}\n\n" + markdown_table(columns, [row])
    )


if __name__ == "__main__":
    main()
