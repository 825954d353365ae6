"""The date and time of a stream's samples, from when they arrive."""

import collections
from datetime import UTC, datetime

_WINDOW = 60.0
"""Seconds of arrivals that count."""

_TOLERANCE = 0.25
"""Seconds by which times may be wrong before they are corrected."""


class StreamClock:
    """Tells when a second of a stream was recorded.

    A network only adds delay, so the earliest arrivals of the last minute tell the truth. Times do
    not wander: they are corrected only when they are wrong by more than 0.25 s.
    """

    def __init__(self, began: float | None = None) -> None:
        """Starts a stream.

        Args:
          began: the time of its first sample as the sender says, in seconds since 1970; it wins.
        """
        self._began, self._is_given = began, began is not None
        self._offsets = collections.deque[tuple[float, float]]()

    def note(self, arrival: float, seconds: float) -> None:
        """Takes an arrival.

        Args:
          arrival: when samples arrived, in seconds since 1970.
          seconds: of the stream, up to the last of these samples.
        """
        if self._is_given:
            return
        offset = arrival - seconds
        while self._offsets and self._offsets[-1][1] >= offset:
            self._offsets.pop()
        self._offsets.append((arrival, offset))
        while self._offsets[0][0] < arrival - _WINDOW:
            self._offsets.popleft()
        earliest = self._offsets[0][1]
        if self._began is None or abs(earliest - self._began) > _TOLERANCE:
            self._began = earliest

    def __call__(self, seconds: float) -> datetime | None:
        """Returns the date and time of a second of the stream in UTC; None if unknown."""
        if self._began is None:
            return None
        return datetime.fromtimestamp(self._began + seconds, UTC)
