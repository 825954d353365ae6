"""The date and time of each second of a live stream."""

import collections
from datetime import datetime

_MEMORY_SECONDS = 60.0
_TOLERANCE_SECONDS = 0.25


class StreamClock:
    """Tells when a stream's seconds happened, from when they arrived.

    Sound comes late by now and then, but never early. So the stream began at the earliest time that
    the arrivals of the last minute allow. It changes only if it is wrong by more than 0.25 s, since
    the clocks of microphones and cameras drift.
    """

    def __init__(self, began: float | None = None) -> None:
        """Starts before the first sound.

        Args:
          began: when the stream began as its sender says, seconds of `time.time`; it wins.
        """
        self._began, self._is_given = began, began is not None
        # Arrival and possible begin. Only what no later arrival undercuts is kept.
        self._lows = collections.deque[tuple[float, float]]()

    def hear(self, until: float, arrived: float) -> None:
        """Takes the arrival of sound.

        Args:
          until: where it ends, seconds of the stream.
          arrived: when that arrived, seconds of `time.time`.
        """
        if self._is_given:
            return
        began = arrived - until
        while self._lows and self._lows[-1][1] >= began:
            self._lows.pop()
        self._lows.append((arrived, began))
        while self._lows[0][0] < arrived - _MEMORY_SECONDS:
            self._lows.popleft()
        lowest = self._lows[0][1]
        if self._began is None or abs(lowest - self._began) > _TOLERANCE_SECONDS:
            self._began = lowest

    def forget(self) -> None:
        """Forgets the arrivals so far: sound was lost, and nobody knows exactly how much."""
        self._lows.clear()

    def at(self, seconds: float) -> datetime | None:
        """Returns the local date and time of a second of the stream; None before any sound."""
        if self._began is None:
            return None
        return datetime.fromtimestamp(self._began + seconds).astimezone()
