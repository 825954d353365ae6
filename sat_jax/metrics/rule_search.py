"""Finds rules of events on labelled clips.

All classes share `min_on`, `min_off` and how far `off` is under `on`; each has its own `on`. So few
settings are found on many events, and a class with few events fits them less by chance.
"""

import itertools
import math
from collections.abc import Sequence

import numpy as np

from sat_jax.errors import SatError
from sat_jax.events import Rule
from sat_jax.metrics.event_scores import Spans, event_collar, labelled_spans, match_events
from sat_jax.metrics.strong import TimedClip, class_columns, positive_chunks

_MAX_LEVELS = 24
"""Values of `on` that are tried for a class."""

_GAPS = (1.0, 0.0, 2.0)
"""How far `off` is under `on`, in log odds; as the next two, the first is the usual one."""

_MIN_OFF = (3.0, 0.0, 1.0, 2.0, 5.0, 10.0)
_MIN_ON = (0.0, 0.5, 1.0, 2.0)
"""Seconds, rounded to the middle between two numbers of chunks, so that no rounding matters."""

_DECIMALS = 4
"""Of scores in rules, since people read them."""

_Shared = tuple[float, float, float]
"""A gap, `min_on` and `min_off`."""


def search_rules(clips: Sequence[TimedClip]) -> dict[int, Rule]:
    """Finds the rules with the highest mean F1 of events, see `sat_jax.metrics.event_scores`.

    `on` is one of the scores in chunks that overlap an event of the class; of equally good ones the
    highest. A class of which no event is ever matched is left out, as are those without events.

    Args:
      clips: with events; at least one.

    Returns:
      Rules by index of the class.

    Raises:
      SatError: no event overlaps a chunk, or no event is ever matched.
    """
    labels, collar = labelled_spans(clips), event_collar(clips)
    track, positive = _Track(clips), positive_chunks(clips)
    times = _times(float(np.median(track.end - track.start)))
    shared = [(gap, *each) for gap in _GAPS for each in times]
    classes = np.array([index for index in sorted(labels) if positive[:, index].any()])
    levels, f1 = {}, {}
    for index, scores in class_columns(clips, classes):
        levels[index] = _levels(scores[positive[:, index]])
        f1[index] = np.array(
            [
                _f1(track.events(chunks, min_on, min_off), labels[index], collar)
                for on in levels[index]
                for gap in _GAPS
                for chunks in [track.heard(scores, on, gap)]
                for min_on, min_off in times
            ]
        ).reshape(-1, len(shared))
    best = {index: each.max(0, initial=0.0) for index, each in f1.items()}
    place = int(np.argmax(sum(best.values())))
    found = {}
    for index, column in ((index, each[:, place]) for index, each in f1.items()):
        if best[index][place] > 0.0:
            on = levels[index][len(column) - 1 - int(np.argmax(column[::-1]))]
            found[index] = _rule(on, shared[place])
    if not found:
        raise SatError("no rule finds an event: check the times of the events")
    return found


def _rule(on: float, shared: _Shared) -> Rule:
    gap, min_on, min_off = shared
    return Rule(on=on, off=_off(on, gap), min_on=min_on, min_off=min_off)


def _off(on: float, gap: float) -> float:
    """Returns the score so far under `on` in log odds, rounded down."""
    return _rounded_down(1.0 / (1.0 + math.exp(gap) * (1.0 - on) / on))


def _rounded_down(score: float) -> float:
    return math.floor(score * 10**_DECIMALS + 1e-6) / 10**_DECIMALS


def _levels(scores: np.ndarray) -> list[float]:
    """Returns the values of `on` to try, ascending, for the scores of positive chunks."""
    levels = np.unique([_rounded_down(score) for score in scores.tolist()])
    levels = levels[(levels > 0.0) & (levels < 1.0)]
    if len(levels) > _MAX_LEVELS:
        places = np.linspace(0, len(levels) - 1, _MAX_LEVELS).round().astype(int)
        levels = levels[places]
    found: list[float] = levels.tolist()
    return found


def _times(chunk: float) -> list[tuple[float, float]]:
    """Returns all pairs of `min_on` and `min_off`, the usual one first.

    Args:
      chunk: length of a chunk, seconds.
    """
    min_on = {_between_chunks(seconds, chunk) for seconds in _MIN_ON if seconds >= chunk}
    min_off = dict.fromkeys(_between_chunks(seconds, chunk) for seconds in _MIN_OFF)
    return list(itertools.product((0.0, *sorted(min_on)), min_off))


def _between_chunks(seconds: float, chunk: float) -> float:
    return round((math.floor(seconds / chunk + 1e-6) + 0.5) * chunk, _DECIMALS)


class _Track:
    """The chunks of all clips, one clip after another.

    The events are those of `sat_jax.events.find_events`, for many settings in little time.
    """

    def __init__(self, clips: Sequence[TimedClip]) -> None:
        self.start = np.concatenate([clip.start for clip in clips])
        self.end = np.concatenate([clip.end for clip in clips])
        lengths = [len(clip.start) for clip in clips]
        self._clip = np.repeat(np.arange(len(clips)), lengths)
        self._first = np.repeat(np.cumsum([0, *lengths[:-1]]), lengths)

    def heard(self, scores: np.ndarray, on: float, gap: float) -> np.ndarray:
        """Returns the chunks in which a class with these scores [n] is heard: int [m]."""
        off = np.float32(_off(on, gap))
        is_on, places = scores >= np.float32(on), np.arange(len(scores))
        # A chunk between `on` and `off` is as the last one that is not, if that is in its clip.
        decided = np.maximum.accumulate(np.where(is_on | (scores < off), places, -1))
        return np.flatnonzero(is_on[decided] & (decided >= self._first))

    def events(self, chunks: np.ndarray, min_on: float, min_off: float) -> Spans:
        """Returns the events of a class that is heard in these chunks."""
        gaps = self.start[chunks[1:]] - self.end[chunks[:-1]]
        follows = (np.diff(chunks) == 1) | (gaps < min_off)
        follows &= np.diff(self._clip[chunks]) == 0
        firsts = chunks[np.concatenate([[True], ~follows])[: len(chunks)]]
        lasts = chunks[np.concatenate([~follows, [True]])[: len(chunks)]]
        start, end = self.start[firsts], self.end[lasts]
        kept = end - start >= min_on
        return Spans(self._clip[firsts][kept], start[kept], end[kept])


def _f1(told: Spans, labelled: Spans, collar: float) -> float:
    matched, _ = match_events(told, labelled, collar)
    return 2 * len(matched) / (len(told.clip) + len(labelled.clip))
