"""Batches of windows as a `tf.data.Dataset`."""

import atexit
import collections
import contextlib
import itertools
from collections.abc import Callable, Generator, Iterator

import numpy as np
import tensorflow as tf

from data_pipeline.batches.windows import Plan, WindowConfig, read_window
from data_pipeline.sources.source import Source
from sat_jax.runtime.threads import map_ahead

_ALIGNMENT = 64  # Bytes; TensorFlow copies arrays that are aligned otherwise.


def read_by_tf_data(
    sources: Generator[Source],
    planner: Callable[[int], Plan],
    config: WindowConfig,
    start_step: int,
    *,
    workers: int,
) -> Iterator[tuple[Plan, np.ndarray]]:
    """Reads the windows of all steps, in order and ahead.

    Args:
      sources: the clips, once for each step; closed at the end.
      planner: chooses the windows of a step, from any thread.
      config: of batches.
      start_step: the first step.
      workers: threads; each prepares a batch at a time.

    Yields:
      The plan of each step, and its windows: float32 [b, s], read-only.

    Raises:
      SatError: a window can't be read; raised after the batches before it.
    """
    plans: collections.deque[Plan] = collections.deque()
    errors: list[Exception] = []

    def read(step_and_source: tuple[int, Source]) -> tuple[Plan, np.ndarray]:
        step, source = step_and_source
        plan = planner(step)
        return plan, _read_batch(source, config, plan)

    def waveforms() -> Iterator[np.ndarray]:
        steps = zip(itertools.count(start_step), sources, strict=False)
        # TensorFlow prints the traceback of an exception, so that none must leave this function.
        try:
            with (
                contextlib.closing(sources),
                contextlib.closing(
                    map_ahead(read, steps, workers=workers, ahead=workers)
                ) as batches,
            ):
                for plan, waveform in batches:
                    plans.append(plan)
                    yield waveform
        except Exception as error:
            errors.append(error)

    dataset = tf.data.Dataset.from_generator(
        waveforms, output_signature=tf.TensorSpec([None, config.num_samples], tf.float32)
    )
    options = tf.data.Options()
    # Without these, TensorFlow would prefetch more and more batches.
    options.autotune.enabled = False
    options.experimental_optimization.inject_prefetch = False
    # Dropping the only reference to the iterator ends `waveforms`. TensorFlow would print an error
    # if that happened after the interpreter has ended.
    iterators = [dataset.with_options(options).as_numpy_iterator()]
    atexit.register(iterators.clear)
    try:
        while (waveform := next(iterators[0], None)) is not None:
            yield plans.popleft(), waveform
        raise errors[0]
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
