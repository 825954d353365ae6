"""Reads clips for the dataset, and lists those that are skipped."""

import collections
import csv
import io
import os
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from etils import epath

from data_pipeline.sources.segments import Segment
from data_pipeline.sources.source import SAMPLE_RATE, warn_of_first
from data_pipeline.sources.tfds.building import Example, clip_example
from sat_jax.audio import read_blocks
from sat_jax.errors import SatError

MIN_SECONDS = 0.1


class Task(NamedTuple):
    """A clip to read.

    Attributes:
      segment: name and labels.
      path: the file; None if there is none.
    """

    segment: Segment
    path: str | None


class Skipped(NamedTuple):
    """A row of the list of skipped clips."""

    id: str
    file: str
    reason: str


def read_example(task: Task) -> Example | Skipped:
    """Reads a clip as an example of the dataset, or says why it is skipped."""
    segment, path = task
    if path is None:
        return Skipped(segment.id, "", "missing: the audio folder has no such file")
    try:
        samples = read_samples(path)
    # One odd file among two million must not end a build of two days.
    except Exception as error:
        reason = " ".join(str(error).split()).removeprefix(f"{path}: ")
        if not isinstance(error, SatError):
            reason = f"{type(error).__name__}: {reason}"
        return Skipped(segment.id, path, reason)
    return clip_example(segment.id, samples, segment.labels)


def read_samples(path: str | os.PathLike[str]) -> np.ndarray:
    """Reads a whole clip.

    Returns:
      int16 [s], mono at 16 kHz, little-endian; 16-bit files at this rate are kept to the bit.

    Raises:
      SatError: the file can't be read, or is shorter than 0.1 s.
    """
    sound = np.concatenate(list(read_blocks(path, sample_rate=SAMPLE_RATE, warn=warn_of_first)))
    seconds = len(sound) / SAMPLE_RATE
    if seconds < MIN_SECONDS:
        raise SatError(f"{os.fspath(path)}: too short: {seconds:.3f} s, under {MIN_SECONDS} s")
    return np.clip(np.rint(sound * 32_768), -32_768, 32_767).astype("<i2")


def write_skipped(skipped: Iterable[Skipped], path: str) -> None:
    """Writes the list of skipped clips as CSV, sorted."""
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows([Skipped._fields, *sorted(skipped)])
    # File names may have bytes that are not UTF-8.
    epath.Path(path).write_bytes(text.getvalue().encode(errors="backslashreplace"))


def count_skipped(path: str) -> dict[str, int]:
    """Counts the clips of a list of skipped clips by the start of their reasons."""
    rows = csv.DictReader(io.StringIO(epath.Path(path).read_text()))
    reasons = (row["reason"].partition(":")[0] for row in rows)
    return dict(collections.Counter(reasons).most_common())
