"""Batches of windows, read ahead by threads, padded clips and whole ones."""

import collections
import itertools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TypedDict

import numpy as np

from data_pipeline.batches.windows import Fill, Plan, Planner, WindowConfig
from data_pipeline.sources.source import Source
from sat_jax.errors import SatError

Sound = np.ndarray | SatError
"""A clip's samples, or why there are none."""


class WindowBatch(TypedDict):
    """Labelled windows: this process's rows of a batch.

    Attributes:
      waveform: float32 [b, s] in [-1, 1].
      target: float32 [b, y] or [b, k, y] in [0, 1].
      clips: names of the clips, b of them.
    """

    waveform: np.ndarray
    target: np.ndarray
    clips: Sequence[str]


def window_batches(
    source: Source, planner: Planner, config: WindowConfig, *, workers: int = 4
) -> Callable[[int], Iterator[WindowBatch]]:
    """An endless source of batches.

    Args:
      source: where clips are read from. TFDS clips are read by tf.data, others by threads.
      planner: which windows.
      config: the one the planner was made with.
      workers: windows that are read at a time.

    Returns:
      From the index of the first batch wanted to an iterator over the batches from there on; it
      raises `SatError` where a clip can't be read.
    """

    def batches(start: int) -> Iterator[WindowBatch]:
        # A source may know a faster way than one read a window.
        read_windows = getattr(source, "read_windows", partial(read_by_threads, source))
        windows = read_windows(
            planner, start, num_samples=config.num_samples, fill=config.fill, workers=workers
        )
        for plan, waveform in windows:
            clips = [source.clips.ids[index] for index in plan.clip]
            yield {"waveform": waveform, "target": plan.target, "clips": clips}

    return batches


def read_by_threads(
    source: Source,
    plans: Callable[[int], Plan],
    start_step: int,
    *,
    num_samples: int,
    fill: Fill,
    workers: int = 4,
) -> Iterator[tuple[Plan, np.ndarray]]:
    """Reads the windows of plans, in order and ahead.

    Args:
      source: of the clips.
      plans: from a step to its plan.
      start_step: the first step.
      num_samples: length of a window.
      fill: how a shorter window is made longer.
      workers: windows that are read at a time.

    Yields:
      A plan and its windows, float32 [b, num_samples].

    Raises:
      SatError: a window can't be read.
    """

    def read(clip: int, place: float, start: float) -> np.ndarray:
        window = source.read(
            clip,
            num_samples=num_samples,
            place=place,
            start=None if np.isnan(start) else start,
        )
        return fill_window(window, num_samples, fill)

    pool = ThreadPoolExecutor(workers, thread_name_prefix="read-clips")
    ahead: collections.deque[tuple[Plan, list[Future[np.ndarray]]]] = collections.deque()
    try:
        for step in itertools.count(start_step):
            plan = plans(step)
            rows = zip(plan.clip.tolist(), plan.place.tolist(), plan.start.tolist(), strict=True)
            ahead.append((plan, [pool.submit(read, *row) for row in rows]))
            if len(ahead) > 2:
                plan, windows = ahead.popleft()
                yield plan, np.stack([window.result() for window in windows])
    finally:
        pool.shutdown(cancel_futures=True)


def fill_window(window: np.ndarray, num_samples: int, fill: Fill) -> np.ndarray:
    """A window of full length: float32 [at most num_samples] -> [num_samples]."""
    if fill == "wrap":
        return np.resize(window, num_samples)
    return np.pad(window, (0, num_samples - len(window)))


def read_whole_clips(
    source: Source, clips: Sequence[int], *, workers: int = 4
) -> Iterator[tuple[int, Sound]]:
    """Reads clips in order and ahead.

    Args:
      source: of the clips.
      clips: their places in it.
      workers: clips that are read at a time.

    Yields:
      Each place with all samples float32 [s], or the error where the clip can't be read.
    """

    def read(index: int) -> Sound:
        try:
            return source.read(index, num_samples=None, place=0.0, start=None)
        except SatError as error:
            return error

    pool = ThreadPoolExecutor(workers, thread_name_prefix="read-clips")
    try:
        ahead: collections.deque[tuple[int, Future[Sound]]] = collections.deque()
        for index in clips:
            ahead.append((index, pool.submit(read, index)))
            if len(ahead) > 2 * workers:
                yield ahead[0][0], ahead.popleft()[1].result()
        while ahead:
            yield ahead[0][0], ahead.popleft()[1].result()
    finally:
        pool.shutdown(cancel_futures=True)


class ClipBatch(TypedDict):
    """Whole clips, padded to one length: this process's rows of a batch.

    Attributes:
      waveform: float32 [b, s]; zeros behind a clip's end.
      num_samples: int32 [b], samples of each clip.
      is_real: bool [b]; rows that only fill up the last batches are not counted.
      target: float32 [b, y], 1 where a class is heard.
    """

    waveform: np.ndarray
    num_samples: np.ndarray
    is_real: np.ndarray
    target: np.ndarray


def clip_batches(
    source: Source,
    *,
    batch_size: int,
    num_samples: int,
    num_classes: int,
    process_index: int = 0,
    process_count: int = 1,
    workers: int = 4,
) -> Iterator[ClipBatch]:
    """All clips of a source once, in order; every process gets as many batches.

    Args:
      source: where clips are read from.
      batch_size: clips in a batch, of all processes together; shared evenly by them.
      num_samples: what is heard of a clip at most, from its start.
      num_classes: the model's.
      process_index: which rows are this process's.
      process_count: processes that share a batch.
      workers: clips that are read at a time.

    Raises:
      SatError: a clip can't be read.
    """
    total, rows = len(source.clips.ids), batch_size // process_count

    def read(index: int) -> np.ndarray:
        if index >= total:
            return np.zeros(0, np.float32)
        return source.read(index, num_samples=num_samples, place=0.0, start=0.0)

    with ThreadPoolExecutor(workers, thread_name_prefix="read-clips") as pool:
        for first in range(process_index * rows, total + process_index * rows, batch_size):
            indices = np.arange(first, first + rows)
            is_real = indices < total
            sounds = list(pool.map(read, indices.tolist()))
            yield {
                "waveform": np.stack([fill_window(s, num_samples, "zeros") for s in sounds]),
                # A row without a clip has to have a length for which all is defined.
                "num_samples": np.array([len(s) or num_samples for s in sounds], np.int32),
                "is_real": is_real,
                "target": source.clips.targets(np.where(is_real, indices, 0), num_classes),
            }
