"""Operations of TensorFlow's graph that read windows from TFRecord files."""

from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf
import tensorflow_datasets as tfds

from data_pipeline.sources.tfds.records import RECORD_HEADER
from data_pipeline.sources.tfds.source import TfdsSource

_INT16_SCALE = 1 / 32_768


class Columns(NamedTuple):
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
    def signature(cls) -> "Columns":
        """What tf.data is told of batches of them."""
        columns = [tf.TensorSpec([None], tf.int64)] * (len(cls._fields) - 1)
        return cls(tf.TensorSpec([None], tf.int32), *columns)


def clip_reader(source: TfdsSource, *, map_files: bool) -> Callable[[Columns], tf.Tensor]:
    """A function in the graph from one clip to the samples of its window.

    Args:
      source: of the clips.
      map_files: whether local files may be mapped into memory.

    Returns:
      From `Columns` of scalars to float32 [at most the window's length].
    """
    if (source.records.audio < 0).any():
        return _record_reader(source)
    if not map_files or any("://" in path for path in source.records.files):
        return _bytes_reader(source)
    return _mapped_reader(source)


def _mapped_reader(source: TfdsSource) -> Callable[[Columns], tf.Tensor]:
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

    def read(clip: Columns) -> tf.Tensor:
        file = tf.raw_ops.TensorListGetItem(
            input_handle=files, index=clip.file, element_shape=[-1], element_dtype=tf.uint8
        )
        start = clip.audio + 2 * clip.first
        data = file[start : start + 2 * clip.count]
        return _scaled(tf.bitcast(tf.reshape(data, [-1, 2]), tf.int16))

    return read


def _bytes_reader(source: TfdsSource) -> Callable[[Columns], tf.Tensor]:
    """Reads the record, from any file system, and decodes the window alone."""
    record_of = _record_of(source)

    def read(clip: Columns) -> tf.Tensor:
        start = clip.audio - clip.record + 2 * clip.first
        data = tf.strings.substr(record_of(clip), start, 2 * clip.count)
        return _scaled(tf.io.decode_raw(data, tf.int16))

    return read


def _record_reader(source: TfdsSource) -> Callable[[Columns], tf.Tensor]:
    """Reads and decodes the whole clip, however TFDS stored it."""
    record_of = _record_of(source)
    features = tfds.features.FeaturesDict({source.audio_name: source.audio_feature})

    def read(clip: Columns) -> tf.Tensor:
        sound = features.deserialize_example(record_of(clip))[source.audio_name]
        window = sound[clip.first : clip.first + clip.count]
        scaled = _scaled(window) if window.dtype.is_integer else tf.cast(window, tf.float32)
        return scaled if window.shape.rank == 1 else tf.reduce_mean(scaled, axis=1)

    return read


def _record_of(source: TfdsSource) -> Callable[[Columns], tf.Tensor]:
    paths = tf.constant([str(path) for path in source.records.files])

    def record_of(clip: Columns) -> tf.Tensor:
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
