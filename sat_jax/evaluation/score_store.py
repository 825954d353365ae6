"""Scores of clips on disk, saved part by part, so that a stopped evaluation resumes.

A folder holds ``about.json``, which says what was scored, and ``part-000000.npy``,
``part-000001.npy``, … A part is a NumPy structured array with a row for each prediction: ``clip``
(index in the source), ``version`` (changes with the recording), ``num_samples`` (length of the
clip) and ``probs`` (float32 [y]). A clip's rows stand together, in order of time.
"""

import contextlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sat_jax.runtime.files import atomic_write, explain_write_errors, locked_folder

FORMAT = 3
"""Increased when the file format changes, so that older folders are not read."""


class ClipScores(NamedTuple):
    """Scores of one clip.

    Attributes:
      clip: its index in the source.
      num_samples: its length.
      probs: float32 [k, y], one row per prediction, perhaps mapped from disk.
    """

    clip: int
    num_samples: int
    probs: np.ndarray


class ScoreStore:
    """A folder of scores, open in one program at a time. Use it in a ``with`` statement."""

    def __init__(
        self, folder: Path, about: Mapping[str, Any], num_classes: int, versions: np.ndarray
    ) -> None:
        """Creates a folder or opens an existing one.

        Args:
          folder: belongs to one model, mode and list of clips.
          about: JSON-ready description of the scores.
          num_classes: y.
          versions: int64 [n], the present version of each clip, see `LabeledClips`. Scores of
            another version are ignored.

        Raises:
          SatError: the folder can't be written, or another program has it open.
        """
        self.folder, self._versions = folder, np.asarray(versions, np.int64)
        self._row = np.dtype(
            [
                ("clip", "<i8"),
                ("version", "<i8"),
                ("num_samples", "<i8"),
                ("probs", "<f4", (num_classes,)),
            ]
        )
        self._current: dict[int, ClipScores] = {}
        self.changed: set[int] = set()
        """Clips whose scores are all of another version."""
        with contextlib.ExitStack() as stack, explain_write_errors(folder):
            stack.enter_context(locked_folder(folder))
            with atomic_write(folder / "about.json") as temporary:
                temporary.write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
            self._next_part = 0
            for path in sorted(folder.glob("part-*.npy")):
                self._read(path)
            self._lock = stack.pop_all()

    def __enter__(self) -> "ScoreStore":
        """Returns the store."""
        return self

    def __exit__(self, *_: object) -> None:
        """Releases the folder."""
        self._lock.close()

    @property
    def scores(self) -> dict[int, ClipScores]:
        """Scores of the clips scored so far, by index in the source, in ascending order."""
        return dict(sorted(self._current.items()))

    def add(self, scores: Sequence[ClipScores]) -> None:
        """Saves scores of clips in a new part, whole or not at all.

        Raises:
          SatError: the part can't be written.
        """
        rows = np.empty(sum(len(each.probs) for each in scores), self._row)
        for name, values in (
            ("clip", [each.clip for each in scores]),
            ("version", [self._versions[each.clip] for each in scores]),
            ("num_samples", [each.num_samples for each in scores]),
        ):
            rows[name] = np.repeat(values, [len(each.probs) for each in scores])
        rows["probs"] = np.concatenate([each.probs for each in scores])
        path = self.folder / f"part-{self._next_part:06}.npy"
        with atomic_write(path) as temporary, temporary.open("wb") as file:
            np.save(file, rows)
        self._read(path)

    def _read(self, path: Path) -> None:
        """Reads a part. Removes a damaged one, whose clips are then scored again."""
        self._next_part = int(path.stem.removeprefix("part-")) + 1
        try:
            rows = np.load(path, mmap_mode="r")
        except (EOFError, ValueError):  # A power failure may leave an empty or shorter file.
            path.unlink()
            return
        firsts = np.flatnonzero(np.diff(rows["clip"], prepend=-1))
        for first, end in zip(firsts, [*firsts[1:], len(rows)], strict=True):
            clip, version, num_samples, _ = rows[first].tolist()
            if self._versions[clip] == version:
                self._current[clip] = ClipScores(clip, num_samples, rows["probs"][first:end])
                self.changed.discard(clip)
            elif clip not in self._current:
                self.changed.add(clip)
