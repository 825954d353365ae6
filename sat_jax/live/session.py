"""A stream from its samples to its events, whatever brings the samples and hears the answers."""

import asyncio
import collections
import secrets
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol, Self

import numpy as np

from sat_jax.audio.mono import Resampler
from sat_jax.errors import SatError
from sat_jax.events import EventTracker, WatchedSound
from sat_jax.events.event import Reason
from sat_jax.events.levels import LevelMeter
from sat_jax.events.rules_file import DEFAULT
from sat_jax.events.watching import LOUD
from sat_jax.live.engine import Engine
from sat_jax.live.outputs import Closed, LostSound, Marked, Output, Scores, StateChange
from sat_jax.live.protocol import Phase
from sat_jax.live.stream import Pace, Scored
from sat_jax.live.stream_clock import StreamClock

STALE_AFTER = 10.0
"""Seconds without sound after which events end."""

_LOUDEST = 1e10
"""1 is full scale. Far larger samples would overflow in the model."""

WEBSOCKET = "websocket"
"""Source of the streams of clients."""

_HISTORY = 256
"""Outputs kept for a client that comes back."""


_NOT_PARKED = (
    *("_engine", "_client", "_resampler", "listeners", "ended", "heard_at", "stream"),
    "_levels",  # It has up to 0.1 s of sound.
)
"""Attributes that do not go to another process."""


class Client(Protocol):
    """Who sends a stream and hears its answers."""

    def hear(self, output: Output) -> None:
        """Takes an output."""

    def lose_stream(self) -> None:
        """Another client has taken the stream."""


class Session:
    """A stream.

    `push`, `lose` and `finish` are for one thread, that of its source. All else belongs to the
    thread of the event loop.

    Attributes:
      id: short and random; begins the ids of its events.
      name: its display name.
      source: "mic", "rtsp", "websocket", …
      rules: name of its rules.
      sounds: what is watched.
      token: what a client needs to take it up again.
      chunks: chunks scored.
      received: samples received, at the sender's rate.
      heard_at: `time.monotonic` when the last sound came.
      last: its newest scores.
      listeners: called with each output.
      history: the newest outputs, for a client that comes back.
      ended: whether the stream has ended.
    """

    def __init__(
        self,
        engine: Engine,
        sounds: Sequence[WatchedSound],
        *,
        name: str,
        source: str,
        rules: str = DEFAULT,
        rate: int,
        channels: int = 1,
        pace: Pace = "realtime",
        phase: Phase = "exact",
        began: float | None = None,
        skips_first: bool = False,
    ) -> None:
        """Begins a stream.

        Args:
          engine: scores it.
          sounds: what is watched.
          name: its display name.
          source: what it comes from.
          rules: name of the rules of `sounds`.
          rate: of its samples, Hz.
          channels: of its samples; their mean counts.
          pace: whether it may lag.
          phase: whether it begins with silence, so that streams are ready at different times.
          began: the time of its first sample in seconds since 1970; None if unknown.
          skips_first: whether the first chunk makes no event, as for a device that clicks when it
            is switched on.

        Raises:
          SatError: `Overloaded`.
        """
        self.id = secrets.token_hex(4)
        self.name, self.source, self.rules = name or self.id, source, rules
        self.token = secrets.token_urlsafe(18)
        self.chunks = self.received = 0
        self.heard_at = time.monotonic()
        self.last: Scores | None = None
        self.listeners: list[Callable[[Output], None]] = []
        self.ended = asyncio.Event()
        self._client: Client | None = None
        self.history = collections.deque[Output](maxlen=_HISTORY)
        self.rate, self.channels, self.pace = rate, channels, pace
        self._engine, self._skips_first = engine, skips_first
        self._resampler = Resampler(rate, engine.rate)
        self._clock = StreamClock(began)
        self._marks = collections.deque[tuple[int, str]]()
        self._is_stale = False
        self._pushed = self._silence = self._heard_to = 0
        self._on: frozenset[str] = frozenset()
        self.stream = engine.open(pace)
        if phase == "spread":
            self._silence = engine.spread_silence()
            self._push(np.zeros(self._silence, np.float32))
        self.watch(sounds)

    # ---- For the thread of the source.

    def push(self, frames: np.ndarray) -> None:
        """Takes the next sound, float32 [s, channels] or [s], at the sender's rate.

        Raises:
          SatError: a sample is NaN, infinite or extremely large.
        """
        mono = _mix_down(frames)
        if not np.abs(mono).max(initial=0.0) <= _LOUDEST:  # So for NaN too.
            seconds = self.received / self.rate
            raise SatError(
                f"a sample after {seconds:.1f} s is NaN or beyond {_LOUDEST:g}: 1 is full scale"
            )
        self.received += len(mono)
        self.heard_at = time.monotonic()
        self._push(self._resampler.push(mono))
        self._clock.hear(self.received / self.rate, time.time())

    def lose(self, seconds: float) -> None:
        """Goes on after lost sound: silence takes its place, so that times stay right."""
        count = round(seconds * self.rate)
        self.received += count
        self._push(self._resampler.push(np.zeros(count, np.float32)))
        self._clock.forget()

    def finish(self) -> None:
        """Ends the stream; what is left is scored."""
        self._push(self._resampler.finish())
        self._engine.finish(self.stream)

    def _push(self, samples: np.ndarray) -> None:
        if len(samples):
            self._pushed += len(samples)
            self._engine.push(self.stream, samples)

    # ---- For the event loop.

    @property
    def seconds(self) -> float:
        """The length of the stream so far."""
        return self.received / self.rate

    @property
    def is_of_source(self) -> bool:
        """Whether its sound is that of a camera or microphone of the server, not of a client."""
        return self.source not in (WEBSOCKET, "upload")

    @property
    def acknowledged(self) -> int:
        """Samples that the sender need never send again, at its rate: those that were scored."""
        return max(0, self._heard_to - self._silence) * self.rate // self._engine.rate

    @property
    def on(self) -> frozenset[str]:
        """Names of the watched sounds that are heard."""
        return self._on

    @property
    def is_waiting(self) -> bool:
        """Whether so much waits that a recording should not send more."""
        return self._engine.waiting_chunks(self.stream) > 4

    @property
    def is_flooded(self) -> bool:
        """Whether so much waits that the sound does not come in real time."""
        return self._engine.is_flooded(self.stream)

    def park(self) -> dict[str, Any]:
        """Returns the stream as plain data, for `take_up`. Its engine is paused.

        The data has no sound: the client sends what was not scored again.
        """
        names = [name for name in vars(self) if name not in _NOT_PARKED]
        data = {name: getattr(self, name) for name in names}
        data |= {"received": self.acknowledged, "_pushed": self._heard_to}
        return {"session": data, "state": self._engine.to_bytes(self.stream)}

    @classmethod
    def take_up(cls, engine: Engine, data: dict[str, Any]) -> Self:
        """Goes on with a stream of `park` in another process.

        Raises:
          SatError: the state is of another model, or `Overloaded`.
        """
        session = cls.__new__(cls)
        vars(session).update(data["session"])
        session._engine, session._client, session.listeners = engine, None, []
        session._resampler = Resampler(session.rate, engine.rate)
        session.ended = asyncio.Event()
        session.heard_at = time.monotonic()
        session.stream = engine.from_bytes(
            data["state"], first=session._heard_to, pace=session.pace
        )
        session._measure_levels()
        return session

    @property
    def has_client(self) -> bool:
        """Whether a client has the stream now."""
        return self._client is not None

    def set_client(self, client: Client | None) -> None:
        """Gives the stream to a client, or to nobody; one that had it loses it."""
        previous, self._client = self._client, client
        if previous is not None and client is not None:
            previous.lose_stream()

    def watch(self, sounds: Sequence[WatchedSound]) -> None:
        """Watches these sounds from here on."""
        self.sounds = sounds
        self._tracker = EventTracker(
            sounds,
            session=self.id,
            sample_rate=self._engine.rate,
            clock=self._clock.at,
            shortest=self._engine.shortest,
        )
        self._measure_levels()

    def _measure_levels(self) -> None:
        """Measures levels from here on, if somebody wants to know of loud sounds."""
        is_wanted = any(sound.name == LOUD for sound in self.sounds)
        first = self._heard_to - self._silence
        self._levels = LevelMeter(self._engine.rate, first) if is_wanted else None

    def watch_anew(self, sounds: Sequence[WatchedSound]) -> None:
        """Ends all events and watches these sounds, unless they are those of now."""
        if sounds != self.sounds:
            self.end_events("reload")
            self.watch(sounds)

    def mark(self, name: str) -> None:
        """Tells `Marked` after the scores of all whole chunks that were pushed."""
        whole = self._pushed // self._engine.hop * self._engine.hop
        self._marks.append((whole, name))
        self._tell_marks()

    def close(self) -> None:
        """Ends the stream at once; what waits is lost."""
        self._engine.close(self.stream)
        self._end("closed")

    def end_events(self, reason: Reason) -> None:
        """Ends all events."""
        self._tell_all(self._tracker.finish(self._seconds(self._heard_to), reason))
        self._tell_states()

    def check_signal(self) -> None:
        """Ends all events if no sound has come for a while."""
        is_stale = time.monotonic() - self.heard_at > STALE_AFTER
        if is_stale and not self._is_stale:
            self.end_events("no_signal")
        self._is_stale = is_stale

    def hear(self, scored: Scored | None) -> None:
        """Takes what the engine tells."""
        if scored is None:
            self._end("closed")
            return
        self._heard_to = scored.end
        start, end = self._seconds(scored.first), self._seconds(scored.end)
        if scored.probs is None:
            self._tell(LostSound(start=start, end=end, reason="overload"))
        else:
            self._tell_scores(scored.probs, scored, start, end)
        if self._levels is not None:
            for level in self._levels.push(scored.samples):
                if level.start >= 0.0:
                    self._tell_all(self._tracker.push_level(level))
        is_skipped = self._skips_first and self.chunks == 1
        if scored.probs is not None and not is_skipped:
            self._tell_all(self._tracker.push(start, end, scored.probs))
        self._tell_states()
        self._tell_marks()

    def _tell_scores(self, probs: np.ndarray, scored: Scored, start: float, end: float) -> None:
        scores = Scores(
            chunk=self.chunks,
            start=start,
            end=end,
            lag=scored.lag,
            rms=float(np.sqrt(np.square(scored.samples).mean())),
            probs=probs,
        )
        self.chunks += 1
        self.last = scores
        self._tell(scores)

    def _seconds(self, sample: int) -> float:
        return max(0, sample - self._silence) / self._engine.rate

    def _end(self, reason: Reason) -> None:
        self.end_events(reason)
        self._tell(Closed(chunks=self.chunks, seconds=self.seconds))
        self.ended.set()

    def _tell_states(self) -> None:
        on, self._on = self._on, self._tracker.on
        for name in sorted(on ^ self._on):
            self._tell(StateChange(name=name, is_on=name in self._on))

    def _tell_marks(self) -> None:
        while self._marks and self._heard_to >= self._marks[0][0]:
            self._tell(Marked(id=self._marks.popleft()[1]))

    def _tell_all(self, outputs: Sequence[Output]) -> None:
        for output in outputs:
            self._tell(output)

    def _tell(self, output: Output) -> None:
        self.history.append(output)
        if self._client is not None:
            self._client.hear(output)
        for listener in list(self.listeners):
            listener(output)


def _mix_down(frames: np.ndarray) -> np.ndarray:
    """Returns the mean of channels: float32 [s, channels] or [s] -> [s]."""
    if frames.ndim == 1 or frames.shape[1] == 1:
        return frames.reshape(-1)
    with np.errstate(over="ignore", invalid="ignore"):
        return np.ascontiguousarray(frames.T).mean(axis=0)
