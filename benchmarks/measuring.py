"""Fair timing of rivals on one machine: threads, interleaved rounds, statistics.

JAX and PyTorch each keep worker threads that spin for a while after a call, waiting for more work.
Rivals therefore take turns in short blocks with a pause between, and are compared inside each
round, where the machine's mood is the same for all.
"""

import importlib.metadata
import os
import platform
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from sat_jax.profile.timing import cpu_model, markdown_table, spread, time_calls
from sat_jax.runtime.devices import usable_cores

__all__ = [
    "interleave",
    "limit_threads",
    "machine",
    "markdown_table",
    "ratio",
    "speedup_cells",
    "speedups",
    "spread",
    "time_calls",
    "warn_if_busy",
]

PAUSE = 0.1
"""Seconds between blocks, until the threads of the last rival sleep."""
BLOCK = 0.2
"""Approximate seconds of a block."""
MAX_CALLS = 50
"""Maximum number of calls in a block."""

BUSY_LOAD = 0.5
"""Load average of the last minute from which a machine counts as busy."""

Times = dict[str, list[np.ndarray]]
"""Seconds of every call, by rival: one array per round."""


def limit_threads(count: int | None) -> int:
    """Restricts this process to `count` CPUs; call it before importing JAX.

    Args:
      count: CPUs to use; None for all that this process may use.

    Returns:
      The number of CPUs in use.
    """
    if not hasattr(os, "sched_setaffinity"):
        return usable_cores()
    allowed = sorted(os.sched_getaffinity(0))
    chosen = allowed[: count or len(allowed)]
    os.sched_setaffinity(0, chosen)
    return len(chosen)


def machine(packages: Iterable[str], *, threads: int) -> dict[str, Any]:
    """Describes the machine, for the report and for JSON.

    Args:
      packages: distributions whose versions are reported.
      threads: CPUs in use.
    """
    return {
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "threads": threads,
        "load_before": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "system": platform.platform(),
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in packages},
    }


def warn_if_busy(setting: Mapping[str, Any]) -> None:
    """Warns on standard error if other programs ran just before the measurement."""
    if (setting["load_before"] or 0.0) > BUSY_LOAD:
        print(
            f"load average {setting['load_before']:.1f}: this machine was busy. If other programs "
            "still run, these numbers mean little: PyTorch suffers more than XLA.",
            file=sys.stderr,
        )


def interleave(rivals: Mapping[str, Callable[[], Any]], *, rounds: int) -> Times:
    """Times several rivals in turns; the order rotates from round to round.

    Args:
      rivals: functions that return when their work is done.
      rounds: blocks of calls of each rival.
    """
    times: Times = {name: [] for name in rivals}
    calls = {name: _calls_per_block(call) for name, call in rivals.items()}
    names = list(rivals)
    for index in range(rounds):
        for name in names[index % len(names) :] + names[: index % len(names)]:
            time.sleep(PAUSE)
            rivals[name]()  # Wakes the threads.
            times[name].append(time_calls(rivals[name], calls[name]))
    return times


def _calls_per_block(call: Callable[[], Any]) -> int:
    call()
    seconds = float(np.min(time_calls(call, 2)))
    return int(np.clip(BLOCK / seconds, 1, MAX_CALLS))


def ratio(ours: list[np.ndarray], theirs: list[np.ndarray]) -> dict[str, float]:
    """Returns median and quartiles of the rounds' ratios; below 1, ours is faster."""
    ratios = [np.median(a) / np.median(b) for a, b in zip(ours, theirs, strict=True)]
    low, median, high = np.percentile(ratios, [25, 50, 75])
    return {"median": float(median), "quartile_1": float(low), "quartile_3": float(high)}


def speedups(times: Times, ours: str = "jax") -> dict[str, dict[str, float]]:
    """Returns the ratio of our steps per second to those of each rival, see `ratio`."""
    return {
        f"speedup_over_{rival}": ratio(blocks, times[ours])
        for rival, blocks in times.items()
        if rival != ours
    }


def speedup_cells(step: Mapping[str, Any]) -> list[str]:
    """Formats the result of `speedups` as table cells: medians and quartiles."""
    found = [value for name, value in step.items() if name.startswith("speedup_over_")]
    return [f"{s['median']:.2f} ({s['quartile_1']:.2f}-{s['quartile_3']:.2f})" for s in found]
