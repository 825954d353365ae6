"""Shared by the builders of this project's own TFDS datasets."""

import contextlib
import io
from collections.abc import Iterable
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from data_pipeline.sources.source import SAMPLE_RATE
from sat_jax.errors import SatError
from sat_jax.labels import audioset_labels

Example = dict[str, Any]


class OrderedExampleWriter(tfds.core.ExampleWriter):
    """Writes the features of an example in alphabetical order.

    Protobuf's own order changes from process to process, and with it the bytes of the dataset.
    """

    def write(self, path: Any, examples: Iterable[tuple[Any, bytes]]) -> Any:
        """See the base class."""
        return super().write(path, ((key, _in_order(example)) for key, example in examples))


def _in_order(example: bytes) -> bytes:
    import tensorflow as tf

    return tf.train.Example.FromString(example).SerializeToString(deterministic=True)


def clip_features(*, id_doc: str) -> Any:
    """Returns the features of a clip: id, audio, labels, seconds.

    Args:
      id_doc: documents how ids are made.
    """
    names = [label.name for label in audioset_labels()]
    return tfds.features.FeaturesDict(
        {
            "id": tfds.features.Text(doc=id_doc),
            # Bytes are read several times as fast as TFDS's usual lists of integers, take a third
            # of the space, and allow reading a window alone: see benchmarks/audio_storage.py
            "audio": tfds.features.Audio(
                shape=(None,), dtype=np.int16, sample_rate=SAMPLE_RATE, encoding="bytes"
            ),
            "labels": tfds.features.Sequence(tfds.features.ClassLabel(names=names)),
            "seconds": tfds.features.Scalar(np.float32, doc="length of the clip"),
        }
    )


def clip_example(name: str, samples: np.ndarray, labels: Iterable[int]) -> Example:
    """Returns a clip as an example with `clip_features`.

    Args:
      name: its id.
      samples: int16 [s], mono at 16 kHz, little-endian.
      labels: indices of AudioSet classes.
    """
    return {
        "id": name,
        # TFDS takes encoded audio only as an array.
        "audio": np.array(samples.tobytes(), dtype=object),
        "labels": list(labels),
        "seconds": np.float32(len(samples) / SAMPLE_RATE),
    }


def prepare(builder: tfds.core.DatasetBuilder, config: Any = None) -> None:
    """Builds a dataset.

    Args:
      builder: of the dataset.
      config: a `tfds.download.DownloadConfig`.

    Raises:
      SatError: the dataset exists already, or can't be built.
    """
    if builder.is_prepared():
        raise SatError(f"{builder.data_dir} exists: remove it to build the dataset again")
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # Hides TFDS's greetings.
            builder.download_and_prepare(download_config=config)
    except SatError:
        raise
    except Exception as error:  # TFDS and Beam pass on any error, such as a full disk.
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise SatError(f"{builder.data_dir}: cannot build the dataset: {reason}") from error
