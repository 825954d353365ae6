"""Batches of windows as a `tf.data.Dataset`."""

import atexit
import itertools
from collections.abc import Callable, Iterator

import numpy as np
import tensorflow as tf

from data_pipeline.batches.windows import Plan, WindowConfig, read_window
from data_pipeline.sources.source import Source

_ALIGNMENT = 64  # Bytes; TensorFlow copies arrays that are aligned otherwise.
_BATCHES_AHEAD = 2


def read_by_tf_data(
    source: Source,
    planner: Callable[[int], Plan],
    config: WindowConfig,
    start_step: int,
    *,
    workers: int,
) -> Iterator[tuple[Plan, np.ndarray]]:
    """Reads the windows of all steps, in order and ahead.

    Args:
      source: the clips.
      planner: chooses the windows of a step, from any thread.
      config: of batches.
      start_step: the first step.
      workers: threads; each reads a batch at a time.

    Yields:
      The plan of each step, and its windows: float32 [b, s], read-only.

    Raises:
      SatError: a window can't be read; raised after the batches before it.
    """
    plans: dict[int, Plan | Exception] = {}

    # An exception in a dataset prints a traceback of TensorFlow, so it is kept here.
    def read(step: np.ndarray) -> np.ndarray:
        try:
            plan = planner(int(step))
            waveform = _read_batch(source, config, plan)
        except Exception as error:
            plans[int(step)] = error
            return np.zeros((0, 0), np.float32)
        plans[int(step)] = plan
        return waveform

    dataset = (
        tf.data.Dataset.range(start_step, np.iinfo(np.int64).max)
        .map(
            lambda step: tf.numpy_function(read, [step], tf.float32),
            num_parallel_calls=workers,
            deterministic=True,
        )
        .prefetch(_BATCHES_AHEAD)
        .with_options(_options(workers))
    )
    # Its threads call `read`, and would hang if the interpreter ended before them. They end when
    # the only reference to the iterator is dropped.
    iterators = [dataset.as_numpy_iterator()]
    atexit.register(iterators.clear)
    try:
        for step in itertools.count(start_step):
            waveform = next(iterators[0])
            plan = plans.pop(step)
            if isinstance(plan, Exception):
                raise plan
            yield plan, waveform
    finally:
        atexit.unregister(iterators.clear)
        iterators.clear()


def _read_batch(source: Source, config: WindowConfig, plan: Plan) -> np.ndarray:
    waveform = _empty(len(plan.clip), config.num_samples)
    for row, window in zip(waveform, plan.windows(), strict=True):
        read_window(source, config, window, out=row)
    return waveform


def _empty(rows: int, samples: int) -> np.ndarray:
    """Returns float32 [rows, samples] that TensorFlow uses without a copy."""
    memory = np.empty(4 * rows * samples + _ALIGNMENT, np.uint8)
    first = -memory.ctypes.data % _ALIGNMENT
    return memory[first : first + 4 * rows * samples].view(np.float32).reshape(rows, samples)


def _options(workers: int) -> tf.data.Options:
    options = tf.data.Options()
    options.autotune.enabled = False
    options.deterministic = True
    options.threading.private_threadpool_size = workers + 1
    return options
