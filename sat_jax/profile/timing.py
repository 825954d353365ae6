"""Timing calls on this machine."""

import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

MIN_CALLS = 5
"""Fewest calls from which a percentile is told."""


def time_calls(call: Callable[[], Any], count: int) -> np.ndarray:
    """Seconds of each of `count` calls in a row."""
    moments = [time.perf_counter()]
    for _ in range(count):
        call()
        moments.append(time.perf_counter())
    return np.diff(moments)


def time_for(call: Callable[[], Any], seconds: float) -> np.ndarray:
    """Seconds of each of as many calls in a row as `seconds` have room for, at least a few."""
    call()  # The first wakes threads and fills caches.
    end = time.perf_counter() + seconds
    times: list[np.ndarray] = []
    while len(times) < MIN_CALLS or time.perf_counter() < end:
        times.append(time_calls(call, 1))
    return np.concatenate(times)


def spread(times: list[np.ndarray]) -> dict[str, float]:
    """Median and 95th percentile of all calls, in milliseconds."""
    every = 1e3 * np.concatenate(times)
    return {"median_ms": float(np.median(every)), "p95_ms": float(np.percentile(every, 95))}


def cpu_model() -> str:
    """The processor's name, with its widest vector instructions where Linux tells them."""
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return platform.processor() or platform.machine()
    lines = (line.partition(":") for line in info.read_text().splitlines())
    fields = {key.strip(): value.strip() for key, _, value in lines}
    flags = fields.get("flags", "").split()
    vectors = [name for name in ("avx512f", "avx2", "avx") if name in flags][:1]
    return " ".join([fields.get("model name", platform.machine()), *vectors])
