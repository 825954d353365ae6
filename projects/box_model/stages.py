"""Runs the commands of a course once each, and logs how long they took."""

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

from projects.box_model.stage_log import StageLog
from sat_jax.errors import SatError
from sat_jax.runtime.files import explain_write_errors

ROOT = Path(__file__).parents[2]


def run_stage(
    work: Path, name: str, result: Path, command: Sequence[str], *, inputs: Sequence[str] = ()
) -> None:
    """Runs a command unless its result exists, and logs its time.

    Args:
      work: folder of the course, with the log.
      name: stage that the time is added to.
      result: file or folder that the command makes at its very end.
      command: arguments of Python: a script, or "-m" and a module, and flags.
      inputs: texts that identify what else the result depends on.

    Raises:
      SatError: the command failed or was stopped, or the result was made in another way.
    """
    log, made_by = StageLog(work), [*command, *inputs]
    if result.exists():
        log.begin(name, result, made_by)
        return
    with _lock(result):
        log.begin(name, result, made_by)
        if result.exists():
            return
        wall, cpu = time.perf_counter(), _cpu_seconds()
        try:
            run(*command)
            if not result.exists():
                raise SatError(f"{name} was stopped: run the same command to resume")
        finally:
            log.end(result, time.perf_counter() - wall, _cpu_seconds() - cpu)


@contextlib.contextmanager
def _lock(result: Path) -> Iterator[None]:
    """Waits until no other process makes this result, and keeps others waiting meanwhile."""
    import filelock

    # Not the lock in the result's folder, which the command takes.
    lock = filelock.FileLock(result.with_name(f".{result.name}.lock"))
    with explain_write_errors(result):
        result.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            print(f"waiting for another process that makes {result}", flush=True)
            lock.acquire()
    try:
        yield
    finally:
        lock.release()


def run(*command: str) -> None:
    """Runs Python with these arguments in the project's root.

    Signals to stop are passed on to the command, which may have something to save, and its end is
    awaited.

    Raises:
      SatError: the command failed, or a signal arrived.
      KeyboardInterrupt: Ctrl-C was pressed.
    """
    print(f"$ python {' '.join(command)}", flush=True)
    # CPUs unless the environment names another platform.
    environment = {"JAX_PLATFORMS": "cpu"} | os.environ
    # In its own group, the command gets each signal once: from this process, not from the terminal.
    process = subprocess.Popen(
        [sys.executable, *command], cwd=ROOT, env=environment, process_group=0
    )
    with _forwarding_signals(process), process:
        code = process.wait()
    if code:
        raise SatError(f"{' '.join(command[:3])} ended with exit code {code}; see above")


@contextlib.contextmanager
def _forwarding_signals(process: subprocess.Popen[bytes]) -> Iterator[None]:
    received: list[int] = []

    def forward(number: int, frame: FrameType | None) -> None:
        received.append(number)
        process.send_signal(number)

    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    # A shell ignores some of them for its background jobs, as nohup does.
    heeded = [number for number in signals if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, forward) for number in heeded}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if signal.SIGINT in received:
        raise KeyboardInterrupt
    if received:
        raise SatError("stopped: run the same command to resume")


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
