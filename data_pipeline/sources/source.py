"""What every source of labelled clips offers, and what all of them share."""

import functools
import hashlib
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import NamedTuple, Protocol

import numpy as np
from absl import logging

from sat_jax.errors import SatError

SAMPLE_RATE = 16_000
"""Sample rate of every source, Hz."""

INT16_SCALE = np.float32(1 / 32_768)
"""Factor from 16-bit samples to [-1, 1)."""


def warn_of_first(text: str) -> None:
    """Logs the first warning about a clip's sound; thousands of clips may have the same fault."""
    logging.log_first_n(logging.WARNING, "%s (further clips are not named)", 1, text)


class ClipTable(NamedTuple):
    """Names and labels of n clips, as columns.

    Every process keeps the whole table in memory; two million clips take 100 bytes each.

    Attributes:
      ids: n names, unique within the source. Messages and result files use them.
      label_starts: int64 [n + 1]. The labels of clip i are label_indices[label_starts[i] :
        label_starts[i + 1]].
      label_indices: int32 [total], class indices, ascending within each clip.
    """

    ids: Sequence[str]
    label_starts: np.ndarray
    label_indices: np.ndarray

    def labels(self, index: int) -> np.ndarray:
        """Returns the class indices of clip `index`, ascending."""
        return self.label_indices[self.label_starts[index] : self.label_starts[index + 1]]

    def targets(self, clips: np.ndarray, num_classes: int) -> np.ndarray:
        """Returns the hard targets of some clips: int [b] -> float32 [b, y] of 0 and 1.

        Training without labels has num_classes 0.
        """
        target = np.zeros((len(clips), num_classes), np.float32)
        if num_classes:
            for row, index in zip(target, clips, strict=True):
                row[self.labels(int(index))] = 1.0
        return target

    def fingerprint(self) -> str:
        """Returns a short text that depends on the clips, their order and their labels."""
        digest = hashlib.sha256()
        for name in self.ids:
            digest.update(name.encode() + b"\n")
        digest.update(np.asarray(self.label_starts, np.int64).tobytes())
        digest.update(np.asarray(self.label_indices, np.int32).tobytes())
        return digest.hexdigest()[:16]


def make_table(ids: Sequence[str], labels: Sequence[Sequence[int]]) -> ClipTable:
    """Makes a table from n names and the class indices of each clip."""
    starts = np.zeros(len(ids) + 1, np.int64)
    np.cumsum([len(classes) for classes in labels], out=starts[1:])
    flat = [index for classes in labels for index in sorted(classes)]
    return ClipTable(ids, starts, np.asarray(flat, np.int32))


class Source(Protocol):
    """Labelled clips that any thread can read in any order."""

    @property
    def clips(self) -> ClipTable:
        """Names and labels of all clips, in a fixed order."""
        ...

    def path_of(self, index: int) -> str:
        """Returns the file of clip `index`. It may be missing, and may hold several clips."""
        ...

    def read(
        self, index: int, *, num_samples: int | None, place: float, start: float | None
    ) -> np.ndarray:
        """Reads a window of a clip.

        Args:
          index: the clip's index in `clips`.
          num_samples: length of the window; None reads up to the clip's end.
          place: relative position in [0, 1), used if `start` is None. In a clip of s samples the
            window begins at sample int(place * max(1, s - num_samples + 1)).
          start: seconds from the clip's start, or None.

        Returns:
          float32 [at most num_samples] in [-1, 1] at 16 kHz: shorter if the clip ends earlier,
          never empty.

        Raises:
          SatError: the clip can't be read; the message names it.
        """
        ...


ClipReads = Future[Mapping[int, memoryview]]
"""Clips that are being read: the bytes of each."""


class Blocks(Protocol):
    """The clips of a source in blocks: neighbours in a file, which one read fetches."""

    @property
    def of_clip(self) -> np.ndarray:
        """int64 [n], the block of each clip, ascending."""
        ...

    @property
    def clip_bytes(self) -> np.ndarray:
        """int64 [n], the size of each clip."""
        ...

    def read(self, clips: np.ndarray) -> Mapping[int, memoryview]:
        """Reads clips of one block, from any thread: int64 [k], ascending.

        Raises:
          SatError: they can't be read; the message names their file.
        """
        ...

    def source(self, reads: Mapping[int, ClipReads]) -> Source:
        """Returns the source, which then reads these clips from memory.

        Args:
          reads: from each clip to the read that has it.
        """
        ...


def check_rate(rate: int) -> None:
    """Raises SatError if a model's sample rate (Hz) is not `SAMPLE_RATE`."""
    if rate != SAMPLE_RATE:
        raise SatError(f"the model needs {rate} Hz, but clips have {SAMPLE_RATE} Hz")


def window_bounds(
    length: int, *, num_samples: int | None, place: float, start: float | None, name: str
) -> tuple[int, int]:
    """Converts the arguments of `Source.read` to samples.

    Args:
      length: samples in the clip.
      num_samples: see `Source.read`.
      place: see `Source.read`.
      start: see `Source.read`.
      name: the clip's name in messages.

    Returns:
      First sample of the window, and its end (at most `length`).

    Raises:
      SatError: the clip ends before the window begins.
    """
    if start is not None:
        first = round(start * SAMPLE_RATE)
    elif num_samples is None:
        first = 0
    else:
        first = int(place * max(1, length - num_samples + 1))
    last = length if num_samples is None else min(length, first + num_samples)
    if not length:
        raise SatError(f"{name}: has no audio: remove this clip")
    if first >= last:
        raise SatError(
            f"{name}: ends at {length / SAMPLE_RATE:g} s, before {first / SAMPLE_RATE:g} s: "
            "correct the start time, or remove this clip"
        )
    return first, last


def clip_versions(source: Source) -> np.ndarray:
    """Returns numbers that change when the files of clips change.

    No file is opened: a version combines path, size and modification time. Missing and remote files
    count by their path alone.

    Args:
      source: n clips.

    Returns:
      int64 [n].
    """
    version = functools.cache(_version)  # Many clips may share a file.
    paths = (source.path_of(index) for index in range(len(source.clips.ids)))
    return np.fromiter(map(version, paths), np.int64, len(source.clips.ids))


def _version(path: str) -> int:
    real = os.path.realpath(path)
    try:
        found = os.stat(real)
        state = (found.st_size, found.st_mtime_ns)
    except OSError:
        state = (-1, -1)
    digest = hashlib.blake2b(f"{real}\n{state}".encode(errors="surrogateescape"), digest_size=8)
    return int.from_bytes(digest.digest(), "little", signed=True)
