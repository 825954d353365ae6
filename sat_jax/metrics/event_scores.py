"""How well events are told: those that rules find, against strong labels."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from sat_jax.events import Rule, find_events
from sat_jax.metrics.strong import TIME_TOLERANCE, TimedClip

COLLAR = 0.2
"""Seconds by which an onset or offset may be off, as in the DCASE challenges."""

_SHARE_OF_LENGTH = 0.2
"""An offset may also be off by this share of the labelled event's length."""


class Spans(NamedTuple):
    """n events of one class.

    Attributes:
      clip: int [n], the clip of each.
      start: float [n], seconds of the clip.
      end: float [n], seconds of the clip.
    """

    clip: np.ndarray
    start: np.ndarray
    end: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class EventScores:
    """Counts of events by class. Classes without labelled events or without a rule have none.

    Attributes:
      collar: seconds by which an onset may be off; an offset too, or by 20 % of the length.
      hours: of sound in all clips.
      labelled: int64 [y], labelled events.
      told: int64 [y], events that were found.
      matched: int64 [y], those of them that are a labelled event each.
      false_alarms: int64 [y], those of them that overlap no labelled event of their class.
      delays: float64 [n], seconds from the onset of each matched event to its announcement.
    """

    collar: float
    hours: float
    labelled: np.ndarray
    told: np.ndarray
    matched: np.ndarray
    false_alarms: np.ndarray
    delays: np.ndarray

    @property
    def f1(self) -> np.ndarray:
        """float64 [y] in [0, 1], the F1 of each class; NaN for one without labelled events."""
        with np.errstate(invalid="ignore"):
            return 2 * self.matched / (self.labelled + self.told)

    @property
    def num_classes(self) -> int:
        """Number of classes with labelled events and a rule."""
        return int((self.labelled > 0).sum())

    @property
    def macro_f1(self) -> float | None:
        """Mean F1 of these classes; None if there are none."""
        return float(np.nanmean(self.f1)) if self.num_classes else None

    @property
    def micro_f1(self) -> float | None:
        """F1 of the events of all classes; None if there are none."""
        total = self.labelled.sum() + self.told.sum()
        return float(2 * self.matched.sum() / total) if total else None

    @property
    def median_delay(self) -> float | None:
        """Median of `delays`; None if no event is matched."""
        return float(np.median(self.delays)) if len(self.delays) else None

    @property
    def false_alarms_per_hour(self) -> float:
        """False alarms of all classes for each hour of sound."""
        return float(self.false_alarms.sum() / self.hours)


def event_collar(clips: Sequence[TimedClip]) -> float:
    """Returns the collar for clips: `COLLAR`, or the chunk length where that is longer.

    An event starts with its first chunk, so its onset is known to a chunk length.
    """
    return max(COLLAR, *(float((clip.end - clip.start).max()) for clip in clips))


def score_events(clips: Sequence[TimedClip], rules: Mapping[int, Rule]) -> EventScores:
    """Finds the events of each class by its rule, and compares them with the labelled ones.

    As many events as possible are matched. Classes are not folded into those below them.

    Args:
      clips: at least one.
      rules: by index of the class.
    """
    collar, labels = event_collar(clips), labelled_spans(clips)
    classes = np.array(sorted(labels.keys() & rules.keys()), int)
    on = np.array([rules[index].on for index in classes], np.float32)
    found: dict[int, list[tuple[int, float, float, float]]] = {index: [] for index in classes}
    for number, clip in enumerate(clips):
        times, scores = np.append(clip.start, clip.end[-1]), np.asarray(clip.scores, np.float32)
        for index in classes[scores[:, classes].max(0) >= on]:  # The others tell nothing.
            found[index] += (
                (number, event.start, event.end, event.announced)
                for event in find_events(scores[:, index], times, rules[index])
            )
    counts = np.zeros((4, clips[0].scores.shape[1]), np.int64)
    delays: list[float] = []
    for index in classes:
        numbers, start, end, announced = np.array(found[index], float).reshape(-1, 4).T
        told = Spans(numbers.astype(int), start, end)
        ours, theirs = match_events(told, labels[index], collar)
        overlapping = _num_overlapping(told, labels[index])
        counts[:, index] = (
            len(labels[index].clip),
            len(start),
            len(ours),
            (overlapping == 0).sum(),
        )
        delays += (announced[ours] - labels[index].start[theirs]).tolist()
    labelled, told_counts, matched, false_alarms = counts
    return EventScores(
        collar=collar,
        hours=sum(float(clip.end[-1] - clip.start[0]) for clip in clips) / 3600.0,
        labelled=labelled,
        told=told_counts,
        matched=matched,
        false_alarms=false_alarms,
        delays=np.array(delays),
    )


def labelled_spans(clips: Sequence[TimedClip]) -> dict[int, Spans]:
    """Returns the labelled events of each class that has some."""
    rows = [
        (event.class_index, number, event.onset, event.offset)
        for number, clip in enumerate(clips)
        for event in clip.events
    ]
    index, number, start, end = np.array(rows, float).reshape(-1, 4).T
    return {
        int(each): Spans(number[own].astype(int), start[own], end[own])
        for each in np.unique(index)
        for own in [index == each]
    }


def match_events(told: Spans, labelled: Spans, collar: float) -> tuple[np.ndarray, np.ndarray]:
    """Matches as many events as possible, each with at most one other.

    Two events match if their onsets differ by at most the collar, and their offsets by at most the
    collar or 20 % of the labelled event's length.

    Returns:
      Indices into `told` and into `labelled`, int [m] each.
    """
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import maximum_bipartite_matching

    ours, theirs = _pairs(told, labelled, collar)
    length = labelled.end[theirs] - labelled.start[theirs]
    late = np.abs(told.end[ours] - labelled.end[theirs])
    near = late <= np.maximum(collar, _SHARE_OF_LENGTH * length) + TIME_TOLERANCE
    ours, theirs = ours[near], theirs[near]
    if all(len(np.unique(each)) == len(each) for each in (ours, theirs)):
        return ours, theirs  # Most often nobody has a choice.
    shape = (len(told.clip), len(labelled.clip))
    graph = csr_array((np.ones(len(ours)), (ours, theirs)), shape=shape)
    partner = maximum_bipartite_matching(graph, perm_type="column")
    matched = np.flatnonzero(partner >= 0)
    return matched, partner[matched]


def _pairs(told: Spans, labelled: Spans, collar: float) -> tuple[np.ndarray, np.ndarray]:
    """Returns all pairs of events of a clip whose onsets differ by at most the collar."""
    ours, theirs = (each.start for each in _on_a_line(told, labelled, collar))
    order = np.argsort(theirs, kind="stable")
    reach = collar + TIME_TOLERANCE
    first = np.searchsorted(theirs[order], ours - reach)
    counts = np.searchsorted(theirs[order], ours + reach, side="right") - first
    rows = np.repeat(np.arange(len(ours)), counts)
    places = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    return rows, order[np.repeat(first, counts) + places]


def _num_overlapping(told: Spans, labelled: Spans) -> np.ndarray:
    """Returns how many labelled events each told one overlaps: int [n]."""
    ours, theirs = _on_a_line(told, labelled, 0.0)
    begun = np.searchsorted(np.sort(theirs.start), ours.end - TIME_TOLERANCE)
    over = np.searchsorted(np.sort(theirs.end), ours.start + TIME_TOLERANCE, side="right")
    counts: np.ndarray = begun - over
    return counts


def _on_a_line(told: Spans, labelled: Spans, collar: float) -> list[Spans]:
    """Puts all clips behind each other, so far apart that events of two are never near."""
    step = max(told.end.max(initial=0.0), labelled.end.max(initial=0.0)) + 2.0 * collar + 1.0
    return [
        Spans(each.clip, each.start + step * each.clip, each.end + step * each.clip)
        for each in (told, labelled)
    ]
