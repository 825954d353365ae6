"""Scores of many clips on disk, added to clip by clip, so that a long run may be stopped.

A folder holds ``about.json``, what the scores are of; ``scores.f32``, float32 rows of y
probabilities, one for each answer; and ``clips.i64``, four numbers for each clip: its place in the
source, its answers, its samples, its version. Rows stand in the order of clips in ``clips.i64``;
those of a recording that has changed since stay there, and count no more.
"""

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sat_jax.runtime.files import atomic_write, explain_write_errors, locked_folder

FORMAT = 2
"""Counted up when files change, so that older folders are not read as new ones."""

_RECORD = 4


class ScoredClips(NamedTuple):
    """Answers of n clips, in the order of the source.

    Attributes:
      clips: int64 [n], places in the source, ascending.
      first: int64 [n], each clip's first row.
      counts: int64 [n], its rows.
      num_samples: int64 [n], its length.
      rows: float32 [t, y], perhaps mapped from disk.
    """

    clips: np.ndarray
    first: np.ndarray
    counts: np.ndarray
    num_samples: np.ndarray
    rows: np.ndarray

    def place_of(self, clip: int) -> int | None:
        """Where the clip of a place in the source stands here; None if it has no scores."""
        place = int(np.searchsorted(self.clips, clip))
        return place if place < len(self.clips) and self.clips[place] == clip else None

    def answers_of(self, place: int) -> np.ndarray:
        """Probabilities [k, y] of the clip at a place here."""
        return self.rows[self.first[place] : self.first[place] + self.counts[place]]

    def answers(self) -> Iterator[np.ndarray]:
        """Probabilities [k, y] of each clip in turn."""
        return (self.answers_of(place) for place in range(len(self.clips)))


class ScoreStore:
    """A folder of scores, open to be added to; one program at a time."""

    def __init__(
        self, folder: Path, about: Mapping[str, Any], num_classes: int, versions: np.ndarray
    ) -> None:
        """Opens a folder, or makes it; what a stopped program left half written is dropped.

        Args:
          folder: where scores lie; the caller sees to it that it is of the same model and clips.
          about: JSON-ready data on what the scores are of, for people.
          num_classes: y.
          versions: int64 [n], of all clips of the source, see `LabeledClips`.

        Raises:
          SatError: the folder can't be written, or another program has it open.
        """
        self.folder, self._num_classes = folder, num_classes
        self._versions = np.asarray(versions, np.int64)
        with contextlib.ExitStack() as stack, explain_write_errors(folder):
            stack.enter_context(locked_folder(folder))
            with atomic_write(folder / "about.json") as temporary:
                temporary.write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
            self._rows = stack.enter_context((folder / "scores.f32").open("ab"))
            self._clips = stack.enter_context((folder / "clips.i64").open("ab"))
            self._records = self._mend()
            self._opened = stack.pop_all()

    def __enter__(self) -> "ScoreStore":
        """The store itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Closes the files, and lets others have the folder."""
        self._opened.close()

    @property
    def done(self) -> set[int]:
        """Places of the clips that have scores."""
        return set(self._records[self._is_current(), 0].tolist())

    @property
    def changed(self) -> set[int]:
        """Places of the clips that have only scores of what they were before."""
        return set(self._records[:, 0].tolist()) - self.done

    def add(
        self, clips: Sequence[int], num_samples: Sequence[int], answers: Sequence[np.ndarray]
    ) -> None:
        """Adds clips.

        Args:
          clips: places in the source.
          num_samples: their lengths.
          answers: probabilities float32 [k, y] of each.

        Raises:
          SatError: the disk is full or the like.
        """
        counts = [len(answer) for answer in answers]
        versions = self._versions[np.asarray(clips, np.int64)]
        records = np.stack([clips, counts, num_samples, versions], axis=1).astype(np.int64)
        with explain_write_errors(self.folder):
            # A clip's record goes last: what stands in it is complete.
            for file, data in ((self._rows, np.concatenate(answers)), (self._clips, records)):
                file.write(np.ascontiguousarray(data).tobytes())
                file.flush()
        self._records = np.concatenate([self._records, records])

    def scores(self) -> ScoredClips:
        """All scores so far that count, mapped from disk."""
        clips, counts, num_samples, _ = self._records.T
        shape = (int(counts.sum()), self._num_classes)
        path = self.folder / "scores.f32"
        empty = np.zeros(shape, np.float32)
        rows = np.memmap(path, np.float32, "r", shape=shape) if len(clips) else empty
        current = np.flatnonzero(self._is_current())
        order = current[np.argsort(clips[current])]
        first = np.cumsum(counts) - counts
        return ScoredClips(clips[order], first[order], counts[order], num_samples[order], rows)

    def _is_current(self) -> np.ndarray:
        """Which records are of recordings as they are now, each clip's last: bool [r]."""
        places, versions = self._records[:, 0], self._records[:, 3]
        known = (places >= 0) & (places < len(self._versions))
        fits = np.flatnonzero(known & (self._versions[np.where(known, places, 0)] == versions))
        # Files that were changed and changed back are scored twice.
        _, last = np.unique(places[fits][::-1], return_index=True)
        current = np.zeros(len(places), bool)
        current[fits[::-1][last]] = True
        return current

    def _mend(self) -> np.ndarray:
        """Cuts off what was half written, and gives the records [r, 4] of the rest."""
        data = (self.folder / "clips.i64").read_bytes()
        whole = len(data) // (8 * _RECORD) * 8 * _RECORD
        records = np.frombuffer(data[:whole], np.int64).reshape(-1, _RECORD)
        row_bytes = 4 * self._num_classes
        ends = np.cumsum(records[:, 1]) * row_bytes
        records = records[: int(np.searchsorted(ends, self._rows.tell(), side="right"))]
        for file, size in ((self._clips, records.nbytes), (self._rows, _end(ends, len(records)))):
            if file.tell() != size:
                file.truncate(size)
        return records


def _end(ends: np.ndarray, count: int) -> int:
    return int(ends[count - 1]) if count else 0
