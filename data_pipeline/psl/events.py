"""Labels of windows from onsets and offsets: strong labels that are not pseudo."""

import os
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from data_pipeline.psl.label_windows import Teacher, Window
from data_pipeline.sources.bounds import SAMPLE_RATE
from data_pipeline.sources.strong_labels import match_clips, read_strong_labels
from sat_jax.errors import SatError
from sat_jax.labels import Event, audioset_labels

_HEARD_SECONDS = 0.1
"""How long a sound has to be in a window to be heard there; of a shorter one the half is enough."""


class EventTeacher:
    """Knows what is in a window; alone, or with a teacher for what nobody labelled."""

    def __init__(
        self,
        events: Sequence[Sequence[Event]],
        *,
        num_classes: int,
        other: Teacher | None = None,
    ) -> None:
        """Makes a teacher.

        Args:
          events: of each clip of a source.
          num_classes: classes of a window's answer.
          other: a teacher of as many classes; the higher of both probabilities counts.
        """
        self._events, self._num_classes, self._other = events, num_classes, other

    def score(
        self, windows: Iterable[tuple[Window, np.ndarray]]
    ) -> Iterator[tuple[Window, np.ndarray]]:
        """Each window's probabilities float32 [y]: 1 for what is heard in it.

        Raises:
          SatError: the other teacher has another number of classes.
        """
        if self._other is None:
            for window, _ in windows:
                yield window, self._heard(window)
        else:
            for window, probs in self._other.score(windows):
                if len(probs) != self._num_classes:
                    raise SatError(
                        f"the teacher has {len(probs)} classes, and the events are of "
                        f"{self._num_classes}: choose a teacher of AudioSet's classes, or none"
                    )
                yield window, np.maximum(probs, self._heard(window))

    def _heard(self, window: Window) -> np.ndarray:
        start, end = window.first / SAMPLE_RATE, window.last / SAMPLE_RATE
        probs = np.zeros(self._num_classes, np.float32)
        for event in self._events[window.clip]:
            seconds = min(end, event.offset) - max(start, event.onset)
            if seconds >= min(_HEARD_SECONDS, (event.offset - event.onset) / 2):
                probs[event.class_index] = 1.0
        return probs


def read_event_teacher(
    table: str | os.PathLike[str], ids: Sequence[str], *, other: Teacher | None = None
) -> EventTeacher:
    """A teacher that knows what a table says.

    Args:
      table: of onsets and offsets, see `data_pipeline.sources.strong_labels.read_strong_labels`, in
        AudioSet's classes.
      ids: the clips of a source.
      other: see `EventTeacher`.

    Raises:
      SatError: the table can't be read, or lacks a clip.
    """
    names = [label.name for label in audioset_labels()]
    events = read_strong_labels(table, names).events
    found = match_clips(ids, events)
    if missing := [clip for clip, name in zip(ids, found, strict=True) if name is None]:
        raise SatError(
            f"{table} has no rows for {len(missing)} clips, such as {missing[0]!r}: give each clip "
            "one, with empty times if nothing is heard in it"
        )
    of_clips = [events[name] for name in found if name is not None]
    return EventTeacher(of_clips, num_classes=len(names), other=other)
