"""Events chunk by chunk, as `find_events` defines them. Nothing announced is ever withdrawn."""

import collections
import math
import statistics

import numpy as np

from sat_jax.events.event import Event, Notice, Reason
from sat_jax.events.rules import Rule


class EventMachine:
    """Follows one class of one stream."""

    def __init__(self, rule: Rule, *, update_every: float = 10.0) -> None:
        """Starts at the begin of a stream.

        Args:
          rule: of the class.
          update_every: seconds between announcements of an event that goes on.
        """
        self._rule, self._update_every = rule, update_every
        self._scores = collections.deque[float](maxlen=rule.smooth)
        self._heard = False
        self._run: Event | None = None
        self._weighted = 0.0
        self._length = 0.0
        self._is_announced = self._muted = False
        self._updated = 0.0
        self._last_end = -math.inf

    @property
    def is_idle(self) -> bool:
        """Whether a chunk with a score under `on` would change nothing."""
        return self._run is None and self._rule.smooth == 1

    @property
    def event(self) -> Event | None:
        """The event that goes on and was announced, if there is one.

        Also one that ended at `max_on`, until it is certain whether its sound goes on.
        """
        return self._run if self._is_announced else None

    @property
    def since(self) -> float:
        """Start of the event that goes on, announced or not; inf if nothing is heard."""
        return self._run.start if self._run else math.inf

    def push(self, start: float, end: float, score: float) -> list[Notice]:
        """Takes the next chunk of the stream, and returns the announcements.

        Args:
          start: seconds; the end of the chunk before.
          end: seconds.
          score: of the class.
        """
        notices: list[Notice] = []
        was_heard, self._heard = self._heard, self._hears(score)
        if self._run and not (was_heard and self._heard):
            # A gap that is long enough ends the event, even if the class is heard again now.
            now = start if self._heard else end
            if now - self._run.end >= self._rule.min_off:
                notices += self._end("quiet")
        if self._heard:
            notices += self._hear(start, end, float(np.float32(score)))
        return notices

    def finish(self, reason: Reason = "closed") -> list[Notice]:
        """Ends a running event, and returns the announcements.

        Chunks that follow are a new beginning; only the cooldown goes on.

        Args:
          reason: why the event ends.
        """
        self._heard = False
        self._scores.clear()
        return self._end(reason) if self._run else []

    def _hears(self, score: float) -> bool:
        self._scores.append(float(np.float32(score)))
        value = np.float32(statistics.median(self._scores))
        if value >= np.float32(self._rule.on):
            return True
        return self._heard and not value < np.float32(self._rule.off_score)

    def _hear(self, start: float, end: float, score: float) -> list[Notice]:
        """Begins an event, or prolongs it by a chunk."""
        notices: list[Notice] = []
        run = self._run
        if run is not None and run.reason == "max":
            # It ended at `max_on`, and the sound goes on.
            self._run = run = None
            run = self._begin(start, end, muted=self._muted, continues=True)
        elif run is None:
            self._muted = start - self._last_end < self._rule.cooldown
            run = self._begin(start, end, muted=self._muted, continues=False)
        self._weighted += score * (end - start)
        self._length += end - start
        run = run._replace(
            end=end,
            score=score,
            peak=max(run.peak, score),
            mean=self._weighted / self._length,
            chunks=run.chunks + 1,
        )
        if not self._is_announced and (run.continues or end - run.start >= self._rule.min_on):
            self._is_announced, self._updated = True, end
            run = run._replace(announced=end)
            notices.append(Notice("start", run))
        elif self._is_announced and end - self._updated >= self._update_every:
            self._updated = end
            notices.append(Notice("update", run))
        self._run = run
        if self._is_announced and end - run.start >= self._rule.max_on:
            self._run = run._replace(reason="max")
            notices.append(Notice("end", self._run))
        return notices

    def _begin(self, start: float, end: float, *, muted: bool, continues: bool) -> Event:
        self._weighted = self._length = 0.0
        self._is_announced = False
        return Event(start, end, end, 0.0, 0.0, 0.0, 0, muted, continues)

    def _end(self, reason: Reason) -> list[Notice]:
        run, self._run = self._run, None
        assert run is not None
        if not self._is_announced:
            return []
        self._is_announced, self._last_end = False, run.end
        return [] if run.reason == "max" else [Notice("end", run._replace(reason=reason))]
