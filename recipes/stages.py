"""Stages of a recipe: commands that are run once, and how long they took (floor 6)."""

import os
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from recipes.summary import add_seconds
from sat_jax.errors import SatError
from sat_jax.large_pages import TUNABLES
from sat_jax.report.files import naming_file

ROOT = Path(__file__).parent.parent


def use_two_cores_well() -> None:
    """What every program of a recipe finds in its environment, where nothing else is said."""
    # CPUs are meant; an accelerator is used where the environment names it.
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    os.environ.setdefault("GLIBC_TUNABLES", TUNABLES)


def run_stage(work: Path, name: str, result: Path, command: Sequence[str]) -> None:
    """Runs a command of this project unless its result is there, and adds up the time it takes.

    Args:
      work: folder of the course, where the times are kept.
      name: what the time is added to.
      result: what the command makes, at its very end.
      command: a script, or "-m" and a module, and its flags.

    Raises:
      SatError: the command failed or was stopped.
    """
    if result.exists():
        return
    with naming_file(result):
        result.parent.mkdir(parents=True, exist_ok=True)
    wall, cpu = time.perf_counter(), _cpu_seconds()
    try:
        run(*command)
        if not result.exists():
            raise SatError(f"{name} was stopped before its end: the same command goes on")
    finally:
        add_seconds(work, name, time.perf_counter() - wall, _cpu_seconds() - cpu)


def run(*command: str) -> None:
    """Runs a command of this project, each time.

    Raises:
      SatError: it failed.
    """
    print(f"$ python {' '.join(command)}", flush=True)
    code = subprocess.run([sys.executable, *command], cwd=ROOT).returncode
    if code:
        raise SatError(f"{' '.join(command[:3])} ended with exit code {code}; see above")


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
