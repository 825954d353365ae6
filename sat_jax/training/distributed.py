"""Joining the processes of a run."""

import jax

from sat_jax.errors import SatError


def join_processes(
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    *,
    heartbeat_seconds: int = 100,
) -> None:
    """Makes this process one of several that train together; called before JAX is used.

    Args:
      coordinator: HOST:PORT of the first process; None, as the next two, where the environment
        tells (TPU pods, Slurm, Open MPI, Kubernetes).
      num_processes: how many there are.
      process_id: which one this is, from 0.
      heartbeat_seconds: a process not heard of for so long ends the job.

    Raises:
      SatError: the others can't be reached, or the environment does not tell who they are.
    """
    try:
        jax.distributed.initialize(
            coordinator,
            num_processes,
            process_id,
            heartbeat_timeout_seconds=heartbeat_seconds,
        )
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise SatError(
            f"the processes can't find each other ({reason}): start all of them with the same "
            "--coordinator HOST:PORT and --num_processes, and a --process_id of their own"
        ) from error
