"""Opens a prepared TFDS dataset, and finds the features that make a clip."""

import io
import os
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from data_pipeline.sources.tfds.records import BadRecord, Span, feature_spans
from sat_jax.errors import SatError

_COLUMNS_HINT = "name them with --columns AUDIO,LABELS"


class ClipFeatures:
    """The audio, labels and id of a dataset's examples.

    Attributes:
      audio: name of the feature with the samples.
      labels: name of the feature with a class or a list of classes.
      ids: name of the feature with names of clips, or None.
      label_names: class names, or None if the dataset has none.
      sample_rate: of the samples, Hz.
      is_raw: True if the audio feature stores 16-bit samples of one channel as bytes.
    """

    def __init__(
        self,
        features: Any,
        dataset: str,
        *,
        audio: str | None = None,
        labels: str | None = None,
        ids: str | None = None,
        sample_rate: int | None = None,
    ) -> None:
        """Finds the features.

        Args:
          features: TFDS's features of an example, by name.
          dataset: its name, for messages.
          audio: name of the audio feature; None finds it.
          labels: name of the label feature; None is "labels" or "label".
          ids: name of the id feature; None is "id" if there is one.
          sample_rate: of the samples, if the dataset lacks it.

        Raises:
          SatError: a feature is missing or can't be used.
        """
        self.audio = audio or _find_audio(features, dataset)
        self.labels = labels or _find_labels(features, dataset)
        self.ids = ids or ("id" if "id" in features else None)
        feature = _check_audio(features, self.audio, dataset)
        self.label_names = _label_names(features, self.labels, dataset)
        self.sample_rate = _sample_rate(feature, sample_rate, dataset)
        self.is_raw = _is_raw(feature)
        names = [name for name in (self.labels, self.ids) if name]
        self._described = tfds.features.FeaturesDict({name: features[name] for name in names})
        self._audio = tfds.features.FeaturesDict({self.audio: feature})

    def describe(self, example: bytes) -> tuple[str | None, Sequence[int]]:
        """Returns id (None without an id feature) and labels of a serialized example."""
        values = self._described.deserialize_example_np(example)
        classes = np.unique(np.asarray(values[self.labels], np.int64)).tolist()
        if self.ids is None:
            return None, classes
        found = values[self.ids]
        return found.decode() if isinstance(found, bytes) else str(found), classes

    def samples(self, example: bytes) -> np.ndarray:
        """Returns the samples of a serialized example as stored: [s] or [s, channels].

        Raises:
          BadRecord: the example is damaged.
        """
        # TensorFlow reports damage by printing the example, so that most is found before.
        feature_spans(io.BytesIO(example), Span(0, len(example)))
        # TFDS's parser in Python would take 5 to 30 times as long for lists of numbers.
        try:
            with tf.device("/CPU:0"):
                sound = self._audio.deserialize_example(example)[self.audio]
        except (tf.errors.OpError, UnicodeDecodeError) as error:
            raise BadRecord(f"the feature {self.audio!r} can't be parsed") from error
        return np.asarray(sound.numpy())


def open_builder(name: str, data_dir: str | os.PathLike[str] | None) -> Any:
    """Opens a prepared dataset by name, or by the folder with its dataset_info.json.

    Raises:
      SatError: it is not found, not prepared, or does not consist of TFRecord files.
    """
    try:
        if os.path.isfile(os.path.join(name, "dataset_info.json")):
            builder = tfds.builder_from_directory(name)
        else:
            builder = tfds.builder(name, data_dir=data_dir)
    # TFDS passes on any error of its parts.
    except Exception as error:
        folder, versions = _prepared(name, data_dir)
        if isinstance(error, tfds.core.DatasetNotFoundError) and not versions:
            raise SatError(
                f"no dataset {name} in {folder}: give its folder with --data_dir"
            ) from error
        # TFDS appends a list of all datasets that it knows.
        reason = " ".join(str(error).partition("Available datasets")[0].split())[:200]
        has = ", ".join(versions) or "no version"
        raise SatError(
            f"TFDS cannot open {name!r} (--data_dir={folder} has {has}): {reason}"
        ) from error
    if not builder.is_prepared():
        raise SatError(f"{name} is not in {builder.data_dir}: prepare it, or give --data_dir")
    if builder.info.file_format.value != "tfrecord":
        raise SatError(
            f"{name} has files of format {builder.info.file_format.value}: prepare it with "
            "file_format='tfrecord'"
        )
    return builder


def _prepared(name: str, data_dir: Any) -> tuple[str, list[str]]:
    """Returns the data folder and the versions of a dataset in it."""
    folder = os.fspath(data_dir or tfds.core.constants.DATA_DIR)
    at = os.path.join(folder, name.partition(":")[0])
    inside = sorted(os.listdir(at)) if os.path.isdir(at) else []
    return folder, [entry for entry in inside if re.fullmatch(r"\d+\.\d+\.\d+", entry)]


def _find_audio(features: Any, dataset: str) -> str:
    found = [key for key in features if isinstance(features[key], tfds.features.Audio)]
    if len(found) != 1:
        raise SatError(
            f"{dataset} has {len(found)} audio features among {_joined(features)}: {_COLUMNS_HINT}"
        )
    return found[0]


def _find_labels(features: Any, dataset: str) -> str:
    for name in ("labels", "label"):
        if name in features:
            return name
    raise SatError(f"{dataset} has no labels among {_joined(features)}: {_COLUMNS_HINT}")


def _joined(features: Any) -> str:
    return ", ".join(sorted(features))


def _check_audio(features: Any, key: str, dataset: str) -> Any:
    feature = features.get(key)
    if not isinstance(feature, tfds.features.Tensor) or len(feature.shape) not in (1, 2):
        raise SatError(
            f"{dataset} has no feature {key!r} with samples among {_joined(features)}: "
            f"{_COLUMNS_HINT}"
        )
    if getattr(feature.to_json_content(), "lazy_decode", False):
        raise SatError(f"{dataset} has encoded audio: prepare it with lazy_decode=False")
    kind = feature.np_dtype
    if kind not in (np.int16, np.int32, np.int64, np.float32, np.float64):
        raise SatError(f"{dataset} has samples of type {kind}: prepare 16-bit or float samples")
    return feature


def _label_names(features: Any, key: str, dataset: str) -> list[str] | None:
    feature = features.get(key)
    feature = getattr(feature, "feature", feature)  # The element of a sequence.
    if isinstance(feature, tfds.features.ClassLabel):
        return list(feature.names) if feature.num_classes else None
    if (
        not isinstance(feature, tfds.features.Tensor)
        or feature.shape != ()
        or not np.issubdtype(feature.np_dtype, np.integer)
    ):
        raise SatError(
            f"{dataset} has no feature {key!r} with a class or a list of classes among "
            f"{_joined(features)}: {_COLUMNS_HINT}"
        )
    return None


def _sample_rate(feature: Any, given: int | None, dataset: str) -> int:
    rate = given or getattr(feature, "sample_rate", None)
    if not rate:
        raise SatError(
            f"{dataset} has no sample rate: prepare it with an Audio feature that has sample_rate"
        )
    return int(rate)


def _is_raw(feature: Any) -> bool:
    encoding = feature.to_json_content().encoding.lower()
    return encoding == "bytes" and feature.np_dtype == np.int16 and feature.shape == (None,)
