"""What every source of labelled clips offers."""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np


class ClipTable(NamedTuple):
    """What is known of n clips before any of them is read, as columns.

    Two million clips take 100 bytes each, so this is kept in memory by every process.

    Attributes:
      ids: n names, unique in their source; what messages and result files call the clips.
      label_starts: int64 [n + 1]; clip i's labels are label_indices[label_starts[i] :
        label_starts[i + 1]].
      label_indices: int32 [total], indices of the classes heard, ascending in each clip.
    """

    ids: Sequence[str]
    label_starts: np.ndarray
    label_indices: np.ndarray

    def labels(self, index: int) -> np.ndarray:
        """Indices of the classes heard in clip `index`."""
        return self.label_indices[self.label_starts[index] : self.label_starts[index + 1]]

    def targets(self, clips: np.ndarray, num_classes: int) -> np.ndarray:
        """Hard targets of some clips: int [b] -> float32 [b, y] of 0 and 1; y may be 0."""
        target = np.zeros((len(clips), num_classes), np.float32)
        if not num_classes:  # Who learns without labels does not care what they are.
            return target
        for row, index in zip(target, clips, strict=True):
            row[self.labels(int(index))] = 1.0
        return target

    def fingerprint(self) -> str:
        """A short text that changes when the clips, their order or their labels do."""
        digest = hashlib.sha256()
        for name in self.ids:
            digest.update(name.encode() + b"\n")
        digest.update(np.asarray(self.label_starts, np.int64).tobytes())
        digest.update(np.asarray(self.label_indices, np.int32).tobytes())
        return digest.hexdigest()[:16]


def make_table(ids: Sequence[str], labels: Sequence[Sequence[int]]) -> ClipTable:
    """A table from n names and the classes of each."""
    starts = np.zeros(len(ids) + 1, np.int64)
    np.cumsum([len(classes) for classes in labels], out=starts[1:])
    flat = [index for classes in labels for index in sorted(classes)]
    return ClipTable(ids, starts, np.asarray(flat, np.int32))


class Source(Protocol):
    """Labelled clips that can be read in any order, from any thread."""

    @property
    def clips(self) -> ClipTable:
        """Names and labels of all clips, in a fixed order."""
        ...

    def path_of(self, index: int) -> str:
        """The file that clip `index` is read from; it may be missing, and hold other clips too."""
        ...

    def read(
        self, index: int, *, num_samples: int | None, place: float, start: float | None
    ) -> np.ndarray:
        """Reads a window of a clip, decoding no more than it must.

        Args:
          index: which clip.
          num_samples: length of the window; None is the rest of the clip.
          place: where the window lies if `start` is None, in [0, 1): 0 at the clip's start,
            towards 1 at its end. In a clip of s samples it begins at
            int(place * max(1, s - num_samples + 1)).
          start: seconds from the clip's start, or None.

        Returns:
          float32 [at most num_samples] in [-1, 1] at 16 kHz: shorter where the clip ends earlier,
          never empty.

        Raises:
          SatError: the clip can't be read; the message names it.
        """
        ...
