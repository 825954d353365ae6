"""Windows of TFDS clips, read and decoded by tf.data (floor 0).

A plan says which windows; which bytes of which files these are is looked up per batch, and all that
follows runs in TensorFlow's own threads.
"""

import collections
import itertools
import re
import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from data_pipeline.bounds import SAMPLE_RATE, window_bounds
from data_pipeline.records import RECORD_HEADER
from data_pipeline.tfds_source import TfdsSource
from data_pipeline.windows import Fill, Plan
from sat_jax.errors import SatError

_INT16_SCALE = 1 / 32_768
_BATCHES_AHEAD = 2


def read_windows(
    source: TfdsSource,
    plans: Callable[[int], Plan],
    start_step: int,
    *,
    num_samples: int,
    fill: Fill,
    workers: int = 4,
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
    feed = _Feed(source, plans, start_step, num_samples)
    with tf.device("/CPU:0"):
        batch_of = _batch_reader(_clip_reader(source), num_samples, fill)
        dataset = tf.data.Dataset.from_generator(
            feed.batches, output_signature=_Columns.signature()
        )
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


class _Columns(NamedTuple):
    """Which samples of which bytes are to be read: arrays [b], or tensors of one clip.

    Attributes:
      file: int32, index of the file.
      record: int64, first byte of the clip's example.
      audio: int64, first byte of the clip's samples, or -1.
      first: int64, the window's first sample.
      count: int64, samples in the window; at least 1.
    """

    file: Any
    record: Any
    audio: Any
    first: Any
    count: Any

    @classmethod
    def signature(cls) -> "_Columns":
        columns = [tf.TensorSpec([None], tf.int64)] * (len(cls._fields) - 1)
        return cls(tf.TensorSpec([None], tf.int32), *columns)


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

    def batches(self) -> Iterator[_Columns]:
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


def _look_up(source: TfdsSource, plan: Plan, num_samples: int) -> _Columns:
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
    return _Columns(
        records.file_of_clip[clips], records.start[clips], records.audio[clips], first, last - first
    )


def _batch_reader(
    read: Callable[[_Columns], tf.Tensor], num_samples: int, fill: Fill
) -> Callable[[_Columns], tf.Tensor]:
    """A function in the graph from what to read to float32 [b, num_samples]."""

    @tf.autograph.experimental.do_not_convert
    def batch_of(columns: _Columns) -> tf.Tensor:
        return tf.map_fn(
            lambda clip: _filled(read(clip), num_samples, fill),
            columns,
            fn_output_signature=tf.TensorSpec([num_samples], tf.float32),
        )

    return batch_of


def _clip_reader(source: TfdsSource) -> Callable[[_Columns], tf.Tensor]:
    """A function in the graph from one clip to the float32 samples of its window."""
    if (source.records.audio < 0).any():
        return _record_reader(source)
    if any("://" in path for path in source.records.files):
        return _bytes_reader(source)
    return _mapped_reader(source)


def _mapped_reader(source: TfdsSource) -> Callable[[_Columns], tf.Tensor]:
    """Takes windows from files that are mapped into memory: nothing else is ever read."""
    files = tf.raw_ops.EmptyTensorList(
        element_shape=tf.constant([-1]), max_num_elements=-1, element_dtype=tf.uint8
    )
    for path in source.records.files:
        size = tf.io.gfile.stat(path).length
        mapped = tf.raw_ops.ImmutableConst(
            dtype=tf.uint8, shape=[size], memory_region_name=str(path)
        )
        files = tf.raw_ops.TensorListPushBack(input_handle=files, tensor=mapped)

    def read(clip: _Columns) -> tf.Tensor:
        file = tf.raw_ops.TensorListGetItem(
            input_handle=files, index=clip.file, element_shape=[-1], element_dtype=tf.uint8
        )
        data = file[clip.audio + 2 * clip.first :][: 2 * clip.count]
        return _scaled(tf.bitcast(tf.reshape(data, [-1, 2]), tf.int16))

    return read


def _bytes_reader(source: TfdsSource) -> Callable[[_Columns], tf.Tensor]:
    """Reads the record, from any file system, and decodes the window alone."""
    record_of = _record_of(source)

    def read(clip: _Columns) -> tf.Tensor:
        start = clip.audio - clip.record + 2 * clip.first
        data = tf.strings.substr(record_of(clip), start, 2 * clip.count)
        return _scaled(tf.io.decode_raw(data, tf.int16))

    return read


def _record_reader(source: TfdsSource) -> Callable[[_Columns], tf.Tensor]:
    """Reads and decodes the whole clip, however TFDS stored it."""
    record_of = _record_of(source)
    features = tfds.features.FeaturesDict({source.audio_name: source.audio_feature})

    def read(clip: _Columns) -> tf.Tensor:
        sound = features.deserialize_example(record_of(clip))[source.audio_name]
        window = sound[clip.first :][: clip.count]
        scaled = _scaled(window) if window.dtype.is_integer else tf.cast(window, tf.float32)
        return scaled if window.shape.rank == 1 else tf.reduce_mean(scaled, axis=1)

    return read


def _record_of(source: TfdsSource) -> Callable[[_Columns], tf.Tensor]:
    paths = tf.constant([str(path) for path in source.records.files])

    def record_of(clip: _Columns) -> tf.Tensor:
        # tf.data.TFRecordDataset can't begin in the middle of a file, this operation can.
        records = tf.raw_ops.TFRecordDatasetV2(
            filenames=[paths[clip.file]],
            compression_type="",
            buffer_size=tf.constant(0, tf.int64),
            byte_offsets=[clip.record - RECORD_HEADER],
        )
        dataset = tf.data.experimental.from_variant(records, tf.TensorSpec([], tf.string))
        return dataset.take(1).get_single_element()

    return record_of


def _scaled(samples: tf.Tensor) -> tf.Tensor:
    return tf.cast(samples, tf.float32) * _INT16_SCALE


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
    try:
        yield from batches
    except tf.errors.OpError as error:
        # TensorFlow tells first where in the pipeline it was, and last where in the graph.
        reason = re.sub(r".* Iterator::\S+: ", "", error.message.partition("\n")[0])
        raise SatError(f"{source.name} can't be read: {reason}: prepare it again") from error
