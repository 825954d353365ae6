"""Stages of a recipe: commands that are run once, and how long they took."""

import contextlib
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType

from projects.box_model.stage_log import StageLog
from sat_jax.errors import SatError
from sat_jax.runtime.files import explain_write_errors

ROOT = Path(__file__).parents[2]
_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


def use_two_cores_well() -> None:
    """What every program of a recipe finds in its environment, where nothing else is said."""
    # CPUs are meant; an accelerator is used where the environment names it.
    os.environ.setdefault("JAX_PLATFORMS", "cpu")


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
    log, made_by = StageLog(work), [*command, *inputs]
    if result.exists():  # Others who look at it need no waiting for.
        log.begin(name, result, made_by)
        return
    with _alone_with(result):
        log.begin(name, result, made_by)
        if result.exists():
            return
        wall, cpu = time.perf_counter(), _cpu_seconds()
        try:
            run(*command)
            if not result.exists():
                raise SatError(f"{name} was stopped before its end: the same command goes on")
        finally:
            log.end(result, time.perf_counter() - wall, _cpu_seconds() - cpu)


@contextlib.contextmanager
def _alone_with(result: Path) -> Iterator[None]:
    """Waits until no other recipe makes this result, and keeps others waiting meanwhile."""
    import filelock

    # Not in the result's folder's own lock, which the command takes.
    lock = filelock.FileLock(result.with_name(f".{result.name}.lock"))
    with explain_write_errors(result):
        result.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            print(f"waiting for another run, which makes {result}", flush=True)
            lock.acquire()
    try:
        yield
    finally:
        lock.release()


def run(*command: str) -> None:
    """Runs a command of this project, each time.

    Raises:
      SatError: it failed, or this program was told to stop.
      KeyboardInterrupt: by Ctrl-C, that is.
    """
    print(f"$ python {' '.join(command)}", flush=True)
    with _passing_signals_on() as started:
        # In a group of its own a command gets each signal once, by way of this program, whether it
        # came from a terminal, to all of it, or to this program alone.
        process = subprocess.Popen([sys.executable, *command], cwd=ROOT, process_group=0)
        started(process)
        with process:
            code = process.wait()
    if code:
        raise SatError(f"{' '.join(command[:3])} ended with exit code {code}; see above")


@contextlib.contextmanager
def _passing_signals_on() -> Iterator[Callable[[subprocess.Popen[bytes]], None]]:
    """A program that is told to stop tells the command that it runs, and waits for its end.

    The command may have something to save, and must not go on where its caller is gone: the next
    start of the caller would run it twice. Where the caller is halted by Ctrl-Z, so is the command.

    Yields:
      To be told of the command once it runs.
    """
    came: list[int] = []
    running: list[subprocess.Popen[bytes]] = []

    def started(process: subprocess.Popen[bytes]) -> None:
        for number in came:
            process.send_signal(number)
        running.append(process)

    def pass_on(number: int, frame: FrameType | None) -> None:
        came.append(number)
        for process in running:
            process.send_signal(number)

    def halt(number: int, frame: FrameType | None) -> None:
        for process in running:
            process.send_signal(signal.SIGSTOP)
        os.kill(os.getpid(), signal.SIGSTOP)
        for process in running:
            process.send_signal(signal.SIGCONT)

    handlers = dict.fromkeys(_STOPPING, pass_on) | {signal.SIGTSTP: halt}
    before = {number: signal.getsignal(number) for number in handlers}
    for number, handler in before.items():
        if handler != signal.SIG_IGN:  # As by nohup, or in a shell's background jobs.
            signal.signal(number, handlers[number])
    try:
        yield started
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
