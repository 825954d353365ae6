"""Labels windows from onsets and offsets that people annotated."""

import os
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from data_pipeline.psl.teacher import Teacher, Window
from data_pipeline.sources.source import SAMPLE_RATE
from data_pipeline.sources.strong_labels import match_clips, read_strong_labels
from sat_jax.errors import SatError
from sat_jax.labels import Event, audioset_labels

_MIN_OVERLAP_SECONDS = 0.1
"""An event counts in a window that has this much of it, or half of a shorter event."""


class EventTeacher:
    """Scores a window by the events in it, optionally together with another teacher."""

    def __init__(
        self,
        events: Sequence[Sequence[Event]],
        *,
        num_classes: int,
        other: Teacher | None = None,
    ) -> None:
        """Makes a teacher.

        Args:
          events: the events of each clip of a source.
          num_classes: number of classes to score.
          other: a teacher with the same classes; the higher of both probabilities is taken.
        """
        self._events, self._num_classes, self._other = events, num_classes, other

    def score(
        self, windows: Iterable[tuple[Window, np.ndarray]]
    ) -> Iterator[tuple[Window, np.ndarray]]:
        """Yields each window with probabilities float32 [y]: 1 for the classes of its events.

        Raises:
          SatError: the other teacher has another number of classes.
        """
        if self._other is None:
            for window, _ in windows:
                yield window, self._probs(window)
            return
        for window, probs in self._other.score(windows):
            if len(probs) != self._num_classes:
                raise SatError(
                    f"the teacher has {len(probs)} classes, the strong labels have "
                    f"{self._num_classes}: choose a teacher of AudioSet's classes, or none"
                )
            yield window, np.maximum(probs, self._probs(window))

    def _probs(self, window: Window) -> np.ndarray:
        start, end = window.first / SAMPLE_RATE, window.last / SAMPLE_RATE
        probs = np.zeros(self._num_classes, np.float32)
        for event in self._events[window.clip]:
            overlap = min(end, event.offset) - max(start, event.onset)
            if overlap >= min(_MIN_OVERLAP_SECONDS, (event.offset - event.onset) / 2):
                probs[event.class_index] = 1.0
        return probs


def read_event_teacher(
    table: str | os.PathLike[str], clip_ids: Sequence[str], *, other: Teacher | None = None
) -> EventTeacher:
    """Makes a teacher from a table of onsets and offsets.

    Args:
      table: see `data_pipeline.sources.strong_labels.read_strong_labels`; labels are AudioSet's.
      clip_ids: names of the source's clips.
      other: see `EventTeacher`.

    Raises:
      SatError: the table can't be read, or lacks a clip.
    """
    class_names = [label.name for label in audioset_labels()]
    events = read_strong_labels(table, class_names).events
    rows = match_clips(clip_ids, events)
    if missing := [clip for clip, row in zip(clip_ids, rows, strict=True) if row is None]:
        raise SatError(
            f"{table} has no rows for {len(missing)} clips, such as {missing[0]!r}: add a row with "
            "empty times for each clip without events"
        )
    of_clips = [events[row] for row in rows if row is not None]
    return EventTeacher(of_clips, num_classes=len(class_names), other=other)
