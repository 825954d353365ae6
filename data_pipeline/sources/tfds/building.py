"""What the builders of this project's own TFDS datasets share."""

import contextlib
import io
from collections.abc import Iterable
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from data_pipeline.sources.bounds import SAMPLE_RATE
from sat_jax.errors import SatError
from sat_jax.labels import audioset_labels


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
    """What every clip has: id, audio, labels, seconds.

    Args:
      id_doc: how ids are made.
    """
    names = [label.name for label in audioset_labels()]
    return tfds.features.FeaturesDict(
        {
            "id": tfds.features.Text(doc=id_doc),
            # Read four times as fast as TFDS's usual lists of integers, in a third of the
            # space. FLAC would halve that again, but TensorFlow can't decode it:
            # benchmarks/audio_storage.py
            "audio": tfds.features.Audio(
                shape=(None,), dtype=np.int16, sample_rate=SAMPLE_RATE, encoding="bytes"
            ),
            "labels": tfds.features.Sequence(tfds.features.ClassLabel(names=names)),
            "seconds": tfds.features.Scalar(np.float32, doc="length of the clip"),
        }
    )


def prepare(builder: tfds.core.DatasetBuilder, config: Any = None) -> None:
    """Builds a dataset that is not there yet.

    Args:
      builder: of the dataset.
      config: a `tfds.download.DownloadConfig`.

    Raises:
      SatError: it is there already, or can't be built.
    """
    if builder.is_prepared():
        raise SatError(f"{builder.data_dir} is there already: remove it to build it again")
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # TFDS's greetings.
            builder.download_and_prepare(download_config=config)
    except SatError:
        raise
    except Exception as error:  # TFDS and Beam raise whatever their parts do, such as a full disk.
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise SatError(f"{builder.data_dir}: the dataset can't be built: {reason}") from error
