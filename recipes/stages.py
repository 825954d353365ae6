"""Stages of a recipe: commands that are run once, and how long they took (floor 6)."""

import contextlib
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType

from recipes.stage_log import StageLog
from sat_jax.errors import SatError
from sat_jax.files import naming_file
from sat_jax.large_pages import TUNABLES

ROOT = Path(__file__).parent.parent


def use_two_cores_well() -> None:
    """What every program of a recipe finds in its environment, where nothing else is said."""
    # CPUs are meant; an accelerator is used where the environment names it.
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    os.environ.setdefault("GLIBC_TUNABLES", TUNABLES)


def run_stage(
    work: Path, name: str, result: Path, command: Sequence[str], *, inputs: Sequence[str] = ()
) -> None:
    """Runs a command of this project unless its result is there, and adds up the time it takes.

    Args:
      work: folder of the course, where is kept how results were made, and the times.
      name: what the time is added to.
      result: what the command makes, at its very end.
      command: a script, or "-m" and a module, and its flags.
      inputs: what else the result depends on, in words.

    Raises:
      SatError: the command failed or was stopped, or the result is there and was made otherwise.
    """
    log = StageLog(work)
    log.begin(name, result, [*command, *inputs])
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
        log.add_seconds(result, time.perf_counter() - wall, _cpu_seconds() - cpu)


def run(*command: str) -> None:
    """Runs a command of this project, each time.

    Raises:
      SatError: it failed, or this program was told to stop.
      KeyboardInterrupt: by Ctrl-C, that is.
    """
    print(f"$ python {' '.join(command)}", flush=True)
    process = subprocess.Popen([sys.executable, *command], cwd=ROOT)
    with process, _stopping_it_first(process):
        code = process.wait()
    if code:
        raise SatError(f"{' '.join(command[:3])} ended with exit code {code}; see above")


@contextlib.contextmanager
def _stopping_it_first(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """A program that is told to stop tells the command that it runs, and waits for its end.

    The command may have something to save, and must not go on where its caller is gone: the next
    start of the caller would run it twice.
    """
    came: list[int] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        came.append(number)
        if number != signal.SIGINT:  # Ctrl-C reaches all programs of a terminal.
            process.send_signal(number)

    asked = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in asked}
    for number, handler in before.items():
        if handler != signal.SIG_IGN:  # As by nohup, or in a shell's background jobs.
            signal.signal(number, pass_on)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if signal.SIGINT in came:
        raise KeyboardInterrupt
    if came:
        raise SatError("stopped: the same command goes on")


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
