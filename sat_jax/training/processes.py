"""The processes that train together: joining them, agreeing, gathering arrays.

In a run of one process every function returns at once.
"""

import contextlib
import os
import sys
import threading
from collections.abc import Iterator
from typing import Any, NoReturn

import jax
import numpy as np

from sat_jax.errors import SatError


def join_processes(
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    *,
    heartbeat_seconds: int = 100,
    join_seconds: int = 300,
) -> None:
    """Makes this process one of several that train together. Call it before JAX is used.

    Args:
      coordinator: HOST:PORT of the first process. None, like the next two, if the environment
        names it (TPU pods, Slurm, Open MPI, Kubernetes).
      num_processes: number of processes.
      process_id: index of this process, from 0.
      heartbeat_seconds: the job ends if a process is silent for this long.
      join_seconds: how long to wait for the other processes. After an error the program should end
        at once: JAX aborts it some seconds later.

    Raises:
      SatError: the others can't be reached, or the environment does not name them.
    """
    problems: list[Exception] = []

    def join() -> None:
        try:
            jax.distributed.initialize(
                coordinator,
                num_processes,
                process_id,
                initialization_timeout=join_seconds + 30,
                heartbeat_timeout_seconds=heartbeat_seconds,
            )
        except (RuntimeError, ValueError) as error:
            problems.append(error)

    # When its own time is over, JAX aborts the process with a page of addresses.
    thread = threading.Thread(target=join, daemon=True)
    thread.start()
    thread.join(join_seconds)
    if thread.is_alive():
        problems.append(TimeoutError(f"not all came within {join_seconds} s"))
    if problems:
        reason = " ".join(str(problems[0]).split())
        raise SatError(
            f"the processes can't find each other ({reason}): start all of them with the same "
            "--coordinator HOST:PORT and --num_processes, and a --process_id of their own"
        ) from problems[0]


def leave(code: int) -> NoReturn:
    """Ends the program; one of several that failed at once, because JAX waits for the others."""
    if code and jax.distributed.is_initialized():
        os._exit(code)
    sys.exit(code)


def is_lost_process(error: BaseException | None) -> bool:
    """Returns whether an error tells that another process can't be reached."""
    return isinstance(error, (jax.errors.JaxRuntimeError, ValueError)) and "Gloo" in str(error)


@contextlib.contextmanager
def explain_lost_process() -> Iterator[None]:
    """Turns errors that tell that another process can't be reached into a `SatError`."""
    try:
        yield
    except Exception as error:
        if not is_lost_process(error):
            raise
        raise SatError(
            "another process has stopped or does not answer: see its messages, then start all of "
            "them again; the run resumes from its last checkpoint"
        ) from error


def is_first() -> bool:
    """Returns whether this is the process that writes and prints."""
    return jax.process_index() == 0


def from_first(value: bool) -> bool:
    """Returns the first process's value on all processes; all of them call it."""
    if jax.process_count() == 1:
        return value
    from jax.experimental import multihost_utils

    return bool(multihost_utils.broadcast_one_to_all(value))


def all_agree(value: bool) -> bool:
    """Returns whether the value is true on all processes; all of them call it."""
    return bool(np.all(gather(np.asarray(value)))) if jax.process_count() > 1 else value


def wait_for_all(place: str) -> None:
    """Returns once all processes have called it with the same `place`."""
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(place)


def wait_unless_failed(*, key: str, timeout_ms: int) -> None:
    """Waits for the other processes, but not while an error is on its way.

    orbax's thread waits for the others even after it could not write. They are at another barrier,
    so all would wait for ten minutes.
    """
    import orbax.checkpoint as ocp

    if sys.exc_info()[1] is None:
        ocp.multihost.get_barrier_sync_fn()(key=key, timeout_ms=timeout_ms)


def gather(tree: Any) -> Any:
    """Returns whole NumPy arrays, however they are sharded; all processes call it."""
    if jax.process_count() == 1:
        return jax.tree.map(np.asarray, tree)
    from jax.experimental import multihost_utils

    return multihost_utils.process_allgather(tree, tiled=True)
