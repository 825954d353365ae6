"""Timing and tables without JAX: benchmarks choose their CPUs before they import it."""

import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

_MIN_CALLS = 5
"""Fewest calls for a percentile."""


def time_calls(call: Callable[[], Any], count: int) -> np.ndarray:
    """Returns the seconds of each of `count` calls in a row."""
    moments = [time.perf_counter()]
    for _ in range(count):
        call()
        moments.append(time.perf_counter())
    return np.diff(moments)


def time_for(call: Callable[[], Any], seconds: float) -> np.ndarray:
    """Returns the seconds of each call made in `seconds`, of at least 5 calls."""
    call()  # The first call wakes threads and fills caches.
    end = time.perf_counter() + seconds
    times: list[np.ndarray] = []
    while len(times) < _MIN_CALLS or time.perf_counter() < end:
        times.append(time_calls(call, 1))
    return np.concatenate(times)


def spread(times: list[np.ndarray]) -> dict[str, float]:
    """Returns median and 95th percentile of all calls, ms."""
    milliseconds = 1e3 * np.concatenate(times)
    return {
        "median_ms": float(np.median(milliseconds)),
        "p95_ms": float(np.percentile(milliseconds, 95)),
    }


def cpu_model() -> str:
    """Returns the processor's name; on Linux with its widest vector instructions."""
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return platform.processor() or platform.machine()
    lines = (line.partition(":") for line in info.read_text().splitlines())
    fields = {key.strip(): value.strip() for key, _, value in lines}
    flags = fields.get("flags", "").split()
    vectors = [name for name in ("avx512f", "avx2", "avx") if name in flags][:1]
    return " ".join([fields.get("model name", platform.machine()), *vectors])


def markdown_table(columns: list[str], rows: list[list[str]]) -> str:
    """Returns a Markdown table; the first column is left-aligned, the others right-aligned."""
    rule = [":--", *("--:" for _ in columns[1:])]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [columns, rule, *rows])
