"""The cores of a CPU as devices that share the batches of a training program.

Cores that share every product wait for each other in each of them; as devices they wait once a
step, for each other's gradients.
"""

import os

SMALLEST_SHARE = 8
"""Examples from which on a core is not slower as a device: see benchmarks/README.md."""

_COUNT_FLAG = "--xla_force_host_platform_device_count"

# One device may be far behind another where cores have other work or a program is paused; by
# default XLA then complains after 20 s, and jax 0.12 ends the process after 40.
_PATIENCE = (
    "--xla_cpu_collective_call_warn_stuck_timeout_seconds=600",
    "--xla_cpu_collective_call_terminate_timeout_seconds=86400",
)


def usable_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def device_count(batch_size: int, cores: int) -> int:
    """The most devices, one a core, that share a batch evenly and get enough of it.

    Args:
      batch_size: examples in a batch.
      cores: cores to be had.

    Returns:
      At least 1.
    """
    most = min(cores, batch_size // SMALLEST_SHARE)
    return next((count for count in range(most, 1, -1) if batch_size % count == 0), 1)


def make_cores_devices(batch_size: int) -> None:
    """Lets JAX see this process's cores as `device_count` devices; other platforms don't change.

    Call this before JAX is used. A user who has told JAX or XLA how many devices a CPU is, by
    JAX_NUM_CPU_DEVICES or XLA_FLAGS, is not overruled, nor one who keeps XLA's flags in a file.

    Args:
      batch_size: examples in a batch.
    """
    before = os.environ.get("XLA_FLAGS", "").strip()
    # Else it is the name of a file.
    lists_flags = before.startswith("-") or not before
    if "JAX_NUM_CPU_DEVICES" in os.environ or _COUNT_FLAG in before or not lists_flags:
        return
    count = device_count(batch_size, usable_cores())
    if count > 1:
        os.environ["XLA_FLAGS"] = " ".join([before, f"{_COUNT_FLAG}={count}", *_PATIENCE]).strip()
