"""Windows of TFDS clips, read and decoded by tf.data.

A plan says which windows; which bytes of which files these are is looked up per batch, and all that
follows runs in TensorFlow's own threads.
"""

import collections
import contextlib
import itertools
import re
import threading
from collections.abc import Callable, Iterator

import numpy as np
import tensorflow as tf

from data_pipeline.batches.windows import Fill, Plan
from data_pipeline.sources.bounds import SAMPLE_RATE, window_bounds
from data_pipeline.sources.tfds.graph import Columns, clip_reader
from data_pipeline.sources.tfds.source import TfdsSource
from sat_jax.errors import SatError

_BATCHES_AHEAD = 2


def read_windows(
    source: TfdsSource,
    plans: Callable[[int], Plan],
    start_step: int,
    *,
    num_samples: int,
    fill: Fill,
    workers: int = 4,
    map_files: bool = True,
) -> Iterator[tuple[Plan, np.ndarray]]:
    """Reads the windows of plans, in order and ahead, as `TfdsSource.read` would.

    Where samples are stored as bytes in local files, those of a window are all that is read; the
    checksums of records are checked only where whole records are read.

    Args:
      source: of the clips.
      plans: from a step to its plan.
      start_step: the first step.
      num_samples: length of a window.
      fill: how a shorter window is made longer: "wrap" repeats it, "zeros" appends silence.
      workers: batches that are read at a time.
      map_files: whether local files may be mapped into memory, which is several times as fast.

    Yields:
      A plan and its windows, float32 [b, num_samples], read-only.

    Raises:
      SatError: a window can't be read, or the samples' rate is not the model's.
    """
    if source.sample_rate != SAMPLE_RATE:
        raise SatError(
            f"{source.name} has {source.sample_rate} samples a second, and tf.data does not "
            f"resample: prepare it with {SAMPLE_RATE}"
        )
    with contextlib.suppress(RuntimeError):  # It is too late where TensorFlow is in use already.
        tf.config.set_visible_devices([], "GPU")  # Their memory is for training.
    feed = _Feed(source, plans, start_step, num_samples)
    with tf.device("/CPU:0"):
        batch_of = _batch_reader(clip_reader(source, map_files=map_files), num_samples, fill)
        dataset = tf.data.Dataset.from_generator(feed.batches, output_signature=Columns.signature())
        dataset = dataset.map(batch_of, num_parallel_calls=workers, deterministic=True)
        dataset = dataset.prefetch(_BATCHES_AHEAD).with_options(_options(workers))
        windows = dataset.as_numpy_iterator()
    try:
        for batch in _sat_errors(windows, source):
            yield feed.plans.popleft(), batch
        if feed.failure is not None:
            raise feed.failure
    finally:
        feed.stop()


class _Feed:
    """Plans as TensorFlow asks for them, kept until their windows come out."""

    def __init__(
        self,
        source: TfdsSource,
        plans: Callable[[int], Plan],
        start_step: int,
        num_samples: int,
    ) -> None:
        self.plans: collections.deque[Plan] = collections.deque()
        self.failure: Exception | None = None
        self._source = source
        self._make_plan = plans
        self._start_step = start_step
        self._num_samples = num_samples
        self._stopped = threading.Event()

    def stop(self) -> None:
        self._stopped.set()

    def batches(self) -> Iterator[Columns]:
        """What to read for each step; ends where a plan fails, which is kept for the reader."""
        for step in itertools.count(self._start_step):
            if self._stopped.is_set():
                return
            try:
                plan = self._make_plan(step)
                columns = _look_up(self._source, plan, self._num_samples)
            except Exception as error:  # Raised again behind the batches before it.
                self.failure = error
                return
            self.plans.append(plan)
            yield columns


def _look_up(source: TfdsSource, plan: Plan, num_samples: int) -> Columns:
    records, clips = source.records, plan.clip
    rows = zip(clips.tolist(), plan.place.tolist(), plan.start.tolist(), strict=True)
    bounds = [
        window_bounds(
            int(records.num_samples[clip]),
            num_samples=num_samples,
            place=place,
            start=None if np.isnan(start) else start,
            name=f"{source.name}, {source.clips.ids[clip]}",
        )
        for clip, place, start in rows
    ]
    first, last = np.array(bounds, np.int64).T
    return Columns(
        records.file_of_clip[clips], records.start[clips], records.audio[clips], first, last - first
    )


def _batch_reader(
    read: Callable[[Columns], tf.Tensor], num_samples: int, fill: Fill
) -> Callable[[Columns], tf.Tensor]:
    """A function in the graph from what to read to float32 [b, num_samples]."""

    @tf.autograph.experimental.do_not_convert
    def batch_of(columns: Columns) -> tf.Tensor:
        return tf.map_fn(
            lambda clip: _filled(read(clip), num_samples, fill),
            columns,
            fn_output_signature=tf.TensorSpec([num_samples], tf.float32),
        )

    return batch_of


def _filled(window: tf.Tensor, num_samples: int, fill: Fill) -> tf.Tensor:
    length = tf.shape(window)[0]
    if fill == "wrap":
        return tf.tile(window, [-(-num_samples // length)])[:num_samples]
    return tf.pad(window, [[0, num_samples - length]])


def _options(workers: int) -> tf.data.Options:
    options = tf.data.Options()
    options.autotune.enabled = False
    options.deterministic = True
    # One for the feed, which waits for Python.
    options.threading.private_threadpool_size = workers + 1
    return options


def _sat_errors(batches: Iterator[np.ndarray], source: TfdsSource) -> Iterator[np.ndarray]:
    operation_failed = tf.errors.OpError  # `tf` may be gone when the interpreter ends in here.
    try:
        yield from batches
    except operation_failed as error:
        # TensorFlow tells first where in the pipeline it was, and last where in the graph.
        reason = re.sub(r".* Iterator::\S+: ", "", error.message.partition("\n")[0])
        raise SatError(f"{source.name} can't be read: {reason}: prepare it again") from error
