"""Reads batches ahead: windows for training, padded clips for validation; and whole clips."""

import collections
import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import TypedDict

import numpy as np

from data_pipeline.batches.shards import ShardOrder, read_ahead
from data_pipeline.batches.windows import Plan, Planner, Window, WindowConfig, read_window
from data_pipeline.sources.source import Source
from sat_jax.errors import SatError
from sat_jax.runtime.threads import map_ahead

Sound = np.ndarray | SatError
"""A clip's samples, or the error of reading it."""

_BATCHES_AHEAD = 2

_CUTTERS = 8
"""Threads that cut windows from clips in memory: more of them only wait for each other."""


class WindowBatch(TypedDict):
    """Labelled windows: this process's rows of a batch.

    Attributes:
      waveform: float32 [b, s] in [-1, 1].
      target: float32 [b, y] or [b, k, y] in [0, 1].
      clips: ids of the b clips.
    """

    waveform: np.ndarray
    target: np.ndarray
    clips: Sequence[str]


def window_batches(
    source: Source,
    planner: Planner,
    config: WindowConfig,
    *,
    workers: int = 4,
    tf_data: bool = False,
) -> Callable[[int], Iterator[WindowBatch]]:
    """Makes an endless source of batches that can start at any step.

    Args:
      source: the clips.
      planner: chooses the windows.
      config: the planner's.
      workers: threads that read.
      tf_data: reads by a `tf.data.Dataset`. Without it TensorFlow isn't needed.

    Returns:
      A function from the first step to an iterator over the batches from there on. The iterator
      raises `SatError` at a clip that can't be read.
    """

    def batches(start_step: int) -> Iterator[WindowBatch]:
        if tf_data:
            from data_pipeline.batches.tf_data import read_by_tf_data

            sources, threads = (source for _ in itertools.count()), workers
            if isinstance(planner.order, ShardOrder):
                sources = read_ahead(
                    planner.order,
                    first=start_step * planner.num_rows,
                    rows=planner.num_rows,
                    memory=config.buffer_bytes,
                    workers=workers,
                )
                threads = min(workers, _CUTTERS)
            windows = read_by_tf_data(sources, planner, config, start_step, workers=threads)
        else:
            windows = _read_by_threads(source, planner, config, start_step, workers=workers)
        for plan, waveform in windows:
            clips = [source.clips.ids[index] for index in plan.clip]
            yield {"waveform": waveform, "target": plan.target, "clips": clips}

    return batches


def _read_by_threads(
    source: Source, planner: Planner, config: WindowConfig, start_step: int, *, workers: int
) -> Iterator[tuple[Plan, np.ndarray]]:
    """The same as `data_pipeline.batches.tf_data.read_by_tf_data`, a window per thread."""
    plans: collections.deque[Plan] = collections.deque()

    def windows() -> Iterator[Window]:
        for step in itertools.count(start_step):
            plans.append(planner(step))
            yield from plans[-1].windows()

    def read(window: Window) -> np.ndarray:
        samples = np.empty(config.num_samples, np.float32)
        read_window(source, config, window, out=samples)
        return samples

    ahead = _BATCHES_AHEAD * planner.num_rows
    with contextlib.closing(map_ahead(read, windows(), workers=workers, ahead=ahead)) as rows:
        while batch := list(itertools.islice(rows, planner.num_rows)):
            yield plans.popleft(), np.stack(batch)


def read_whole_clips(
    source: Source, clips: Sequence[int], *, workers: int = 4
) -> Iterator[tuple[int, Sound]]:
    """Reads clips in order and ahead.

    Args:
      source: the clips.
      clips: indices of the clips to read.
      workers: threads that read.

    Yields:
      Each index with the clip's samples, float32 [s], or the error of reading it.
    """

    def read(index: int) -> tuple[int, Sound]:
        try:
            return index, source.read(index, num_samples=None, place=0.0, start=None)
        except SatError as error:
            return index, error

    return map_ahead(read, clips, workers=workers, ahead=2 * workers)


class ClipBatch(TypedDict):
    """Clips padded to one length: this process's rows of a batch.

    Attributes:
      waveform: float32 [b, s]; zeros after a clip's end.
      num_samples: int32 [b], samples of each clip.
      is_real: bool [b]; False for rows that only fill up the last batches.
      target: float32 [b, y], 1 for the clip's classes.
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
    """Yields all clips of a source once, in order; every process gets as many batches.

    Args:
      source: the clips.
      batch_size: clips in the global batch, of all processes.
      num_samples: longer clips are cut to this length.
      num_classes: the model's.
      process_index: this process.
      process_count: processes that share a batch evenly.
      workers: threads that read.

    Raises:
      SatError: a clip can't be read.
    """
    total, rows = len(source.clips.ids), batch_size // process_count

    def read(index: int) -> np.ndarray:
        if index >= total:
            return np.zeros(0, np.float32)
        return source.read(index, num_samples=num_samples, place=0.0, start=0.0)

    firsts = range(process_index * rows, total + process_index * rows, batch_size)
    wanted = itertools.chain.from_iterable(range(first, first + rows) for first in firsts)
    with contextlib.closing(map_ahead(read, wanted, workers=workers, ahead=rows)) as sounds:
        for first in firsts:
            indices = np.arange(first, first + rows)
            is_real = indices < total
            waveform = np.zeros((rows, num_samples), np.float32)
            lengths = np.full(rows, num_samples, np.int32)  # Any valid length for other rows.
            for row, sound in enumerate(itertools.islice(sounds, rows)):
                waveform[row, : len(sound)] = sound
                if is_real[row]:
                    lengths[row] = len(sound)
            yield {
                "waveform": waveform,
                "num_samples": lengths,
                "is_real": is_real,
                "target": source.clips.targets(np.where(is_real, indices, 0), num_classes),
            }
