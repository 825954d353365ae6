"""Steps many live streams, the most urgent first, in one thread."""

import collections
import dataclasses
import heapq
import itertools
import math
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from sat_jax.errors import SatError
from sat_jax.live.pool import StreamPool, default_buckets
from sat_jax.live.stream import Pace, Scored, WaitingSamples
from sat_jax.stream_runner import StreamRunner
from sat_jax.streaming.framing import half_patch_seconds

_LOAD = 0.5
"""Share of the time in which steps may run: to receive and tell takes half as long on two cores."""

_GOLDEN = (math.sqrt(5.0) - 1.0) / 2.0


class Overloaded(SatError):
    """No further stream can be taken."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class EngineLimits:
    """Limits of an engine.

    Attributes:
      max_streams: the most streams; 0 is what this machine can step in time.
      max_lag: seconds after which waiting chunks of realtime streams are dropped.
    """

    max_streams: int = 0
    max_lag: float = 4.0


def _newest() -> "collections.deque[Any]":
    return collections.deque(maxlen=10_000)  # Perhaps nobody reads them.


@dataclasses.dataclass
class EngineCounts:
    """What an engine did so far.

    Attributes:
      chunks: scored chunks.
      dropped: chunks that overload dropped.
      rejected: streams that were not taken.
      lags: seconds between the arrival and the scores of a chunk: the newest ones, to be read and
        cleared.
      steps: rows and seconds of the newest steps, to be read and cleared.
    """

    chunks: int = 0
    dropped: int = 0
    rejected: int = 0
    lags: "collections.deque[float]" = dataclasses.field(default_factory=_newest)
    steps: "collections.deque[tuple[int, float]]" = dataclasses.field(default_factory=_newest)


Told = list[tuple["EngineStream", Scored | None]]
"""What was scored. None follows the last chunk of a stream."""

Deliver = Callable[[Told], None]
"""Receives what was scored, in the step thread."""

_Chunk = tuple["EngineStream", np.ndarray, float]
"""A chunk float32 [hop] of a stream, and when its last sample came."""


class EngineStream:
    """A stream of an engine.

    Attributes:
      row: its row in the pool.
      pace: whether it may lag.
      chunks: chunks scored.
      first: sample at which its next chunk begins.
    """

    def __init__(self, row: int, pace: Pace, hop: int) -> None:
        """Begins a stream."""
        self.row, self.pace = row, pace
        self.chunks = self.first = 0
        self.waiting = WaitingSamples(hop)
        self.is_queued = self.is_ending = self.is_closed = False


class Engine:
    """Scores streams in a thread of its own. All methods may be called from any thread."""

    def __init__(self, tagger: StreamRunner, deliver: Deliver, limits: EngineLimits) -> None:
        """Compiles the programs, measures how many streams fit, and starts the thread.

        Args:
          tagger: a model with chunk framing.
          deliver: receives what was scored.
          limits: see `EngineLimits`.

        Raises:
          SatError: the framing is seamless.
        """
        self.hop, self.rate = tagger.framing.hop, tagger.config.frontend.sample_rate
        self.shortest = half_patch_seconds(tagger.config)
        self.counts = EngineCounts()
        self._tagger, self._deliver, self._limits = tagger, deliver, limits
        self.seconds_a_stream = _time_a_stream(tagger)
        self.fitting = max(1, int(_LOAD * self.hop / self.rate / self.seconds_a_stream))
        self.capacity = limits.max_streams or self.fitting
        self._pool = StreamPool(tagger, self.capacity)
        self._free = list(range(self.capacity))
        self._heap: list[tuple[bool, float, int, EngineStream]] = []
        self._numbers = itertools.count()
        self._opened = 0
        self._lock = threading.Condition()
        self._paused = self._stopped = False
        self._is_stepping = False
        self._thread = threading.Thread(target=self._run, name="steps", daemon=True)
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    @property
    def used(self) -> int:
        """The number of streams."""
        return self.capacity - len(self._free)

    def open(self, pace: Pace = "realtime") -> EngineStream:
        """Begins a stream.

        Raises:
          Overloaded: there are as many as fit.
        """
        with self._lock:
            stream = self._take_row(pace)
            self._pool.reset(stream.row)
            return stream

    def _take_row(self, pace: Pace) -> EngineStream:
        if not self._free:
            self.counts.rejected += 1
            raise Overloaded(
                f"all {self.capacity} streams are taken: try again later, or raise max_streams"
            )
        self._opened += 1
        return EngineStream(self._free.pop(), pace, self.hop)

    def spread_silence(self) -> int:
        """Returns samples of silence to begin the newest stream with.

        Streams that began together are then ready at different times.
        """
        return int(self.hop * (self._opened * _GOLDEN % 1.0))

    def push(self, stream: EngineStream, samples: np.ndarray) -> None:
        """Takes the next samples of a stream, float32 [s] at the model's rate."""
        with self._lock:
            if stream.is_closed or stream.is_ending:
                return
            stream.waiting.push(samples, time.monotonic())
            self._queue(stream)

    def waiting_chunks(self, stream: EngineStream) -> float:
        """Returns how many chunks of a stream wait."""
        return len(stream.waiting) / self.hop

    def is_flooded(self, stream: EngineStream) -> bool:
        """Whether more waits than sound in real time can bring before it is dropped."""
        seconds = len(stream.waiting) / self.rate
        longest = 2.0 * (self._limits.max_lag + self.hop / self.rate)
        return not stream.is_closed and seconds > longest

    def finish(self, stream: EngineStream) -> None:
        """Scores what is left of a stream, delivers None, and frees its row."""
        with self._lock:
            stream.is_ending = True
            self._queue(stream)

    def close(self, stream: EngineStream) -> None:
        """Frees the row of a stream at once; what waits is lost."""
        with self._lock:
            while self._is_stepping and stream.is_queued:
                self._lock.wait()
            self._free_row(stream)

    def to_bytes(self, stream: EngineStream) -> bytes:
        """Returns the state of a stream, without the chunks that wait.

        Call it while the engine is paused.
        """
        with self._lock:
            return self._pool.to_bytes(stream.row, np.zeros(0, np.float32), stream.chunks)

    def from_bytes(self, data: bytes, *, first: int, pace: Pace = "realtime") -> EngineStream:
        """Takes up a stream of another engine, see `to_bytes`.

        Args:
          data: the state.
          first: sample at which its next chunk begins.
          pace: of the stream.

        Raises:
          SatError: the bytes are of another model, or `Overloaded`.
        """
        with self._lock:
            while self._is_stepping:
                self._lock.wait()
            stream = self._take_row(pace)
            try:
                _, stream.chunks = self._pool.from_bytes(stream.row, data)
            except SatError:
                self._free_row(stream)
                raise
            stream.first = first
            return stream

    def pause(self) -> None:
        """Ends the running step, and starts no other."""
        with self._lock:
            self._paused = True
            while self._is_stepping:
                self._lock.wait()

    def stop(self) -> None:
        """Ends the thread."""
        with self._lock:
            self._stopped = True
            self._lock.notify_all()
        self._thread.join()

    def _free_row(self, stream: EngineStream) -> None:
        if not stream.is_closed:
            stream.is_closed = True
            self._free.append(stream.row)

    def _queue(self, stream: EngineStream) -> None:
        arrival = stream.waiting.arrival
        if stream.is_queued or stream.is_closed or (arrival is None and not stream.is_ending):
            return
        stream.is_queued = True
        due = time.monotonic() if arrival is None else arrival
        heapq.heappush(self._heap, (stream.pace == "asap", due, next(self._numbers), stream))
        self._lock.notify_all()

    def _run(self) -> None:
        while True:
            with self._lock:
                while not self._stopped and (self._paused or not self._heap):
                    self._lock.wait()
                if self._stopped:
                    return
                batch, told = self._take_batch()
                self._is_stepping = True
            told += self._step(batch)
            self._deliver(told)
            with self._lock:
                self._is_stepping = False
                for stream in {stream for stream, _ in told}:
                    stream.is_queued = False
                    self._queue(stream)
                self._lock.notify_all()

    def _take_batch(self) -> tuple[list[_Chunk], Told]:
        """Takes the most urgent chunks, and drops those that are too late."""
        batch: list[_Chunk] = []
        told: Told = []
        now = time.monotonic()
        while self._heap and len(batch) < self._pool.buckets[-1]:
            if batch and self._heap[0][0] and batch[-1][0].pace != "asap":
                break  # Recordings wait while live sound does not.
            _, _, _, stream = heapq.heappop(self._heap)
            if stream.is_closed:
                continue
            arrival = stream.waiting.arrival
            if arrival is None:
                told += self._end(stream)
                continue
            while (
                stream.pace == "realtime"
                and arrival is not None
                and now - arrival > self._limits.max_lag
            ):
                dropped = stream.waiting.take_chunk()
                told.append((stream, self._scored(stream, None, now - arrival, dropped)))
                self.counts.dropped += 1
                arrival = stream.waiting.arrival
            if arrival is not None:
                batch.append((stream, stream.waiting.take_chunk(), arrival))
        return batch, told

    def _step(self, batch: list[_Chunk]) -> Told:
        if not batch:
            return []
        begin = time.monotonic()
        probs = self._pool.step(
            [stream.row for stream, _, _ in batch], np.stack([chunk for _, chunk, _ in batch])
        )
        now = time.monotonic()
        told: Told = []
        for (stream, chunk, arrival), row in zip(batch, probs, strict=True):
            stream.chunks += 1
            # A copy, since the row would keep all rows of the step in memory.
            told.append((stream, self._scored(stream, row.copy(), now - arrival, chunk)))
            self.counts.lags.append(now - arrival)
        self.counts.chunks += len(batch)
        self.counts.steps.append((len(batch), now - begin))
        return told

    def _end(self, stream: EngineStream) -> Told:
        """Scores the rest of a stream that ends."""
        rest = stream.waiting.take_all()
        told: Told = []
        for row in self._pool.finish(stream.row, rest, stream.chunks):
            told.append((stream, self._scored(stream, row, 0.0, rest)))
        self._free_row(stream)
        return [*told, (stream, None)]

    def _scored(
        self, stream: EngineStream, probs: np.ndarray | None, lag: float, chunk: np.ndarray
    ) -> Scored:
        first = stream.first
        stream.first += len(chunk)
        return Scored(first=first, end=stream.first, probs=probs, lag=lag, samples=chunk)


def _time_a_stream(tagger: StreamRunner) -> float:
    """Returns the seconds of a step for each of its rows, in the largest bucket that is full."""
    rows = default_buckets()[-1]
    pool = StreamPool(tagger, rows, buckets=[rows])
    noise = np.random.default_rng(0).standard_normal((rows, tagger.framing.hop))
    windows = (0.1 * noise).astype(np.float32)
    times = []
    for _ in range(7):
        begin = time.perf_counter()
        pool.step(range(rows), windows)
        times.append(time.perf_counter() - begin)
    return float(np.median(times)) / rows
