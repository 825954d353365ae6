"""Examples of this project's own TFDS datasets."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from data_pipeline.sources.bounds import SAMPLE_RATE

Example = dict[str, Any]


def clip_example(name: str, samples: np.ndarray, labels: Iterable[int]) -> Example:
    """A clip as `data_pipeline.sources.tfds.building.clip_features` wants it.

    Args:
      name: its id.
      samples: int16 [s], mono at 16 kHz, little-endian.
      labels: places among AudioSet's classes.
    """
    return {
        "id": name,
        # TFDS takes encoded audio as it is, but only as an array.
        "audio": np.array(samples.tobytes(), dtype=object),
        "labels": list(labels),
        "seconds": np.float32(len(samples) / SAMPLE_RATE),
    }
