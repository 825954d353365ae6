"""Scoring all clips of a source, from where an earlier run stopped."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from sat_jax.errors import SatError
from sat_jax.evaluation.results import MissingClip
from sat_jax.evaluation.scorer import ClipScorer
from sat_jax.evaluation.store import ScoreStore

Sound = np.ndarray | SatError
"""A clip's samples, or why there are none."""

ReadClips = Callable[[Sequence[int]], Iterator[tuple[int, Sound]]]
"""From places of clips in their source to each of them and its samples, in order."""

Report = Callable[[object], None]
"""Tells a person of something in one line."""

_LONG_CLIP = 20 * 16_000
"""Samples; of longer clips fewer are held at a time."""

_SECONDS_PER_LINE = 60.0


class Scoring(NamedTuple):
    """What came of scoring.

    Attributes:
      missing: clips that could not be read.
      clips_per_second: of the clips scored by this run; None if all had scores before.
    """

    missing: tuple[MissingClip, ...]
    clips_per_second: float | None


def score_clips(
    ids: Sequence[str],
    read: ReadClips,
    score: ClipScorer,
    store: ScoreStore,
    *,
    clips_per_part: int,
    title: str,
    report: Report,
) -> Scoring:
    """Scores the clips that have no scores yet.

    Args:
      ids: names of all clips.
      read: reads them.
      score: scores them.
      store: where scores are kept, and were kept before.
      clips_per_part: clips read, scored and stored at a time; best a multiple of what is heard
        side by side.
      title: what the bar is called.
      report: told of each clip that can't be read.

    Raises:
      SatError: scores are not finite, or can't be written.
    """
    done = store.done
    todo = [index for index in range(len(ids)) if index not in done]
    if done:
        report(f"{title}: {len(done)} of {len(ids)} clips were scored before, in {store.folder}")
    if store.changed:
        report(f"{title}: {len(store.changed)} clips have changed since and are scored again")
    missing = []
    with _Progress(title, len(ids), len(ids) - len(todo), report) as progress:
        for part in _parts(read(todo), clips_per_part):
            problems = [(index, sound) for index, sound in part if isinstance(sound, SatError)]
            sounds = [(index, sound) for index, sound in part if isinstance(sound, np.ndarray)]
            for index, problem in problems:
                missing.append(MissingClip(ids[index], str(problem)))
                progress.tell(problem)
            if sounds:
                answers = score([sound for _, sound in sounds])
                lengths = [len(sound) for _, sound in sounds]
                store.add([index for index, _ in sounds], lengths, answers)
            progress.advance(len(part), scored=len(sounds))
        return Scoring(tuple(missing), progress.rate)


def _parts(clips: Iterable[tuple[int, Sound]], size: int) -> Iterator[list[tuple[int, Sound]]]:
    """Lists of so many clips, or of fewer long ones."""
    part: list[tuple[int, Sound]] = []
    held = 0
    for index, sound in clips:
        part.append((index, sound))
        held += len(sound) if isinstance(sound, np.ndarray) else 0
        if len(part) == size or held >= size * _LONG_CLIP:
            yield part
            part, held = [], 0
    if part:
        yield part


class _Progress:
    """How far it is: a bar on a terminal, elsewhere a line each minute."""

    def __init__(self, title: str, total: int, initial: int, report: Report) -> None:
        self._title, self._total, self._done, self._scored = title, total, initial, 0
        self._report = report
        self._since = self._told = time.perf_counter()
        self._bar = tqdm(desc=title, total=total, initial=initial, unit="clip", disable=None)

    def __enter__(self) -> "_Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    @property
    def rate(self) -> float | None:
        """Clips scored a second; None before there is one."""
        return self._scored / (time.perf_counter() - self._since) if self._scored else None

    def tell(self, problem: object) -> None:
        """Reports above the bar."""
        with self._bar.external_write_mode(sys.stderr):
            self._report(problem)

    def advance(self, count: int, *, scored: int) -> None:
        """Counts clips, of which some were scored."""
        self._done, self._scored = self._done + count, self._scored + scored
        self._bar.update(count)
        now = time.perf_counter()
        if self._bar.disable and self.rate and now - self._told > _SECONDS_PER_LINE:
            self._told = now
            self._report(f"{self._title}: {progress_line(self._done, self._total, self.rate)}")


def progress_line(done: int, total: int, rate: float) -> str:
    """How far it is, with the time left in the largest unit of which there is one.

    Args:
      done: clips behind.
      total: all clips.
      rate: clips scored a second, above 0.
    """
    seconds = round((total - done) / rate)
    line = f"{done} of {total} clips, {rate:.3g} clips/s"
    if seconds >= 3600:
        return f"{line}, {seconds / 3600:.1f} h left"
    if seconds >= 60:
        return f"{line}, {seconds // 60} min left"
    return f"{line}, {max(1, seconds)} s left" if done < total else line
