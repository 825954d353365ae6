"""One live stream: samples and gaps in; levels, scored chunks and events out."""

from collections.abc import Iterator, Sequence

import numpy as np

from sat_jax.events import EventMessage, EventTracker, Level, LevelMeter, WatchedSound
from sat_jax.events.event import Reason
from sat_jax.live.stream_clock import StreamClock
from sat_jax.streaming.framing import half_patch_seconds
from sat_jax.streaming.scored_chunk import ScoredChunk, check_finite
from sat_jax.tagger import Tagger

MAX_BRIDGED_SECONDS = 10.0
"""A gap shorter than this does not interrupt a stream."""

Heard = Level | ScoredChunk | EventMessage


class HeardStream:
    """Scores a stream and tells its events.

    A gap of less than 10 s is heard as silence: the model keeps the sound before it in mind, and
    events end as in a pause of that length. A chunk that is lost by more than half has no sound.
    After a longer gap the stream begins anew, since what was before says little about what follows.

    The first chunk of each beginning is scored, but no event comes from it: the model has heard too
    little yet.

    Attributes:
      clock: dates and times of the stream.
      tracker: its events.
    """

    def __init__(self, tagger: Tagger, sounds: Sequence[WatchedSound], *, session: str) -> None:
        """Starts a stream.

        Args:
          tagger: the model, with chunk framing.
          sounds: what to watch.
          session: begins the ids of the stream's events.
        """
        self._tagger, self._hop = tagger, tagger.framing.hop
        self._rate = tagger.config.frontend.sample_rate
        self.clock = StreamClock()
        self.tracker = EventTracker(
            sounds,
            session=session,
            sample_rate=self._rate,
            clock=self.clock.at,
            shortest=half_patch_seconds(tagger.config),
        )
        self._fresh = tagger.init()
        self._position = 0
        self._begin_anew()

    @property
    def seconds(self) -> float:
        """How long the stream is, gaps included."""
        return self._position / self._rate

    def push(self, samples: np.ndarray, arrived: float) -> Iterator[Heard]:
        """Takes the next samples.

        Args:
          samples: float32 [s], mono at the model's rate.
          arrived: when the last one did, seconds of `time.time`.

        Yields:
          A level for every 0.1 s, each chunk when it is complete, and then its events.

        Raises:
          SatError: scores are not finite.
        """
        self.clock.hear((self._position + len(samples)) / self._rate, arrived)
        yield from self._take(samples, is_lost=False)

    def lose(self, seconds: float) -> Iterator[Heard]:
        """Notes that so much sound was lost here; yields what that completes or ends."""
        samples = round(seconds * self._rate)
        if seconds < MAX_BRIDGED_SECONDS and not self._is_untouched:
            yield from self._take(np.zeros(samples, np.float32), is_lost=True)
        else:
            yield from self.interrupt("gap")
            self._position += samples
            self._begin_anew()
        self.clock.forget()

    def interrupt(self, reason: Reason) -> Iterator[Heard]:
        """Scores the incomplete chunk and ends all events. What follows is a new beginning.

        Args:
          reason: why the events end.

        Yields:
          The chunk and the ends.
        """
        for (probs,) in self._tagger.finish(self._state):
            yield from self._score(probs)
        yield from self.tracker.finish(self.seconds, reason)
        self._begin_anew()
        self.clock.forget()

    @property
    def _is_untouched(self) -> bool:
        """Whether nothing was heard since the last beginning."""
        return self._is_first and self._position == self._chunk_start

    def _begin_anew(self) -> None:
        self._state = self._fresh
        self._chunk_start = self._position
        self._lost = 0
        self._is_first = True
        self._levels = LevelMeter(self._rate, self._position)

    def _take(self, samples: np.ndarray, *, is_lost: bool) -> Iterator[Heard]:
        while len(samples):
            piece, samples = np.split(samples, [self._chunk_start + self._hop - self._position])
            yield from self._measure(piece)
            self._position += len(piece)
            self._lost += len(piece) if is_lost else 0
            (probs,), self._state = self._tagger.step(piece, self._state)
            if self._state.ready[0]:
                yield from self._score(probs)

    def _measure(self, piece: np.ndarray) -> Iterator[Heard]:
        for level in self._levels.push(piece):
            yield level
            yield from self.tracker.push_level(level)

    def _score(self, probs: np.ndarray) -> Iterator[Heard]:
        """Yields the chunk that ends here, and its events."""
        start, end = self._chunk_start / self._rate, self.seconds
        length, labels = self._position - self._chunk_start, self._tagger.labels
        yield ScoredChunk(start=start, end=end, probs=check_finite(probs), labels=labels)
        if not self._is_first:
            is_mostly_lost = 2 * self._lost > length
            yield from self.tracker.push(start, end, 0 * probs if is_mostly_lost else probs)
        self._is_first, self._chunk_start, self._lost = False, self._position, 0
