"""The devices that JAX computes on, and settings for training on CPUs.

This module works before JAX is imported: some settings come too late afterwards.
"""

import ctypes
import os
import sys

from sat_jax.errors import SatError

MIN_EXAMPLES_PER_CORE = 8
"""With fewer examples a core is slower as a device of its own, see docs/performance.md."""

_COUNT_FLAG = "--xla_force_host_platform_device_count"

# A device may fall far behind the others where cores have other work or the program is paused. By
# default XLA complains after 20 s, and jax 0.12 ends the process after 40 s.
_WAIT_FLAGS = (
    "--xla_cpu_collective_call_warn_stuck_timeout_seconds=600",
    "--xla_cpu_collective_call_terminate_timeout_seconds=86400",
)

# Options of mallopt as in malloc.h.
_MALLOC_OPTIONS = (
    (-4, 0),  # M_MMAP_MAX: large arrays come from the heap, too.
    (-8, 1),  # M_ARENA_MAX: all threads share one heap.
    (-2, 1 << 28),  # M_TOP_PAD: the heap grows by at least 256 MB.
    (-1, -1),  # M_TRIM_THRESHOLD: the heap never shrinks.
)


def check_devices() -> None:
    """Looks for a device, so that a later error is not blamed on something else.

    Raises:
      SatError: JAX finds no device, or not the one that ``JAX_PLATFORMS`` names.
    """
    import jax

    try:
        jax.devices()
    except Exception as error:  # JAX raises many types, some without a message.
        asked = os.environ.get("JAX_PLATFORMS")
        what = f"no device for JAX_PLATFORMS={asked}" if asked else "no device"
        reason = f" ({str(error).splitlines()[0]})" if str(error) else ""
        raise SatError(
            f"JAX finds {what}{reason}: set JAX_PLATFORMS=cpu, or install JAX for the device"
        ) from error


def usable_cores() -> int:
    """Returns the number of CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def num_cpu_devices(batch_size: int, cores: int) -> int:
    """Returns the largest number of one-core devices that share a batch evenly.

    Args:
      batch_size: examples in a batch. Each device gets at least `MIN_EXAMPLES_PER_CORE`.
      cores: available cores.

    Returns:
      At least 1.
    """
    most = min(cores, batch_size // MIN_EXAMPLES_PER_CORE)
    return next((count for count in range(most, 1, -1) if batch_size % count == 0), 1)


def use_cores_as_devices(batch_size: int) -> None:
    """Makes JAX see the CPU's cores as `num_cpu_devices` devices.

    Cores that share one device wait for each other in every matrix product. As devices they wait
    once a step, for each other's gradients. Other platforms do not change.

    Call this before JAX is used. It does nothing if ``JAX_NUM_CPU_DEVICES`` or ``XLA_FLAGS`` sets
    the number already, or if ``XLA_FLAGS`` names a file.

    Args:
      batch_size: examples in a training batch of this process.
    """
    before = os.environ.get("XLA_FLAGS", "").strip()
    is_file = bool(before) and not before.startswith("-")
    if "JAX_NUM_CPU_DEVICES" in os.environ or _COUNT_FLAG in before or is_file:
        return
    count = num_cpu_devices(batch_size, usable_cores())
    if count > 1:
        flags = [before, f"{_COUNT_FLAG}={count}", *_WAIT_FLAGS]
        os.environ["XLA_FLAGS"] = " ".join(flags).strip()


def keep_freed_memory() -> None:
    """Makes glibc keep freed memory for later allocations of this process.

    On CPUs, XLA allocates the arrays of every training step anew, hundreds of megabytes. By default
    glibc returns them to the system in between, which then clears them again page by page. See
    docs/performance.md for the gain.

    Call this before threads start. It does nothing without glibc, or if the user has set
    ``GLIBC_TUNABLES``.
    """
    if sys.platform != "linux" or "GLIBC_TUNABLES" in os.environ:
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl, for one, has none.
    if mallopt is not None:
        for option, value in _MALLOC_OPTIONS:
            mallopt(option, value)
