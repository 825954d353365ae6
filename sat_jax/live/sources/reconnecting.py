"""A source that is opened anew whenever it ends or hangs."""

import abc
import contextlib
import dataclasses
import itertools
import random
import threading
import time
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np

from sat_jax.audio.mono import SoundInfo, mono_blocks
from sat_jax.live.sources.source import Gap, SourceStatus

_POLL_SECONDS = 0.1
_CLIPPED = 32_766 / 32_768


@dataclasses.dataclass(frozen=True, kw_only=True)
class Timing:
    """How patient a source is. All times are seconds.

    Attributes:
      start: so long a connection may take to bring its first byte: programs look at a stream for
        some seconds to know its format.
      stall: without a further byte for so long, a connection counts as dead.
      first_wait: before the first attempt to reconnect; each wait is twice the one before.
      longest_wait: the longest one.
      steady: a connection that lasted so long makes the waits begin anew.
      silence: zeros for so long are told.
    """

    start: float = 15.0
    stall: float = 5.0
    first_wait: float = 1.0
    longest_wait: float = 60.0
    steady: float = 30.0
    silence: float = 60.0


class LostError(Exception):
    """A connection can't be made now; the text tells why."""


class Connection(Protocol):
    """An open source.

    Attributes:
      is_waiting: whether it waits for somebody to connect, so that no sound is no fault.
      problem: why it ended; known once `read` has returned None.
    """

    is_waiting: bool
    problem: str

    @property
    def info(self) -> SoundInfo:
        """Its name, rate and channels; known once frames were read."""
        ...

    def read(self, seconds: float) -> np.ndarray | Gap | None:
        """Returns the next frames.

        Args:
          seconds: how long to wait for them at most.

        Returns:
          float32 [s, channels], empty if none came in time; a gap; or None at the end.
        """
        ...

    def close(self) -> None:
        """Gives everything back at once, whatever state it is in."""
        ...


class ReconnectingSource(abc.ABC):
    """Base class of sources, see `sat_jax.live.sources.Source`.

    After a loss it waits and connects again. The new sound begins with a `Gap`.
    """

    def __init__(self, *, channel: int | None, timing: Timing) -> None:
        """Connects nothing yet.

        Args:
          channel: see `sat_jax.live.sources.open_source`.
          timing: how patient it is.
        """
        self._channel, self._timing = channel, timing
        self._status = SourceStatus()
        self._stop = threading.Event()
        self._heard_until: float | None = None  # By time.monotonic.
        self._zeros = 0.0
        self._unclipped = 0.0

    @property
    def status(self) -> SourceStatus:
        """How it is doing, for any thread."""
        return self._status

    def stop(self) -> None:
        """Ends `sound` within a second."""
        self._stop.set()

    def sound(self, sample_rate: int) -> Iterator[np.ndarray | Gap]:
        """Yields its sound, see `Source.sound`."""
        failures = 0
        try:
            while not self._stop.is_set():
                began = time.monotonic()
                try:
                    with contextlib.closing(self._connect()) as connection:
                        yield from self._hear(connection, sample_rate)
                        problem = connection.problem
                except LostError as error:
                    problem = str(error)
                if self._stop.is_set():
                    return
                was_steady = time.monotonic() - began >= self._timing.steady
                failures = 0 if self._status.up and was_steady else failures
                self._set(up=False, error=problem, silent=False, clipped=False)
                self._stop.wait(self._wait_seconds(failures))
                failures += 1
                self._set(restarts=self._status.restarts + 1)
        finally:
            self._set(up=False)

    @abc.abstractmethod
    def _connect(self) -> Connection:
        """Connects without waiting.

        Raises:
          LostError: that is impossible now.
        """

    def _wait_seconds(self, failures: int) -> float:
        """Returns how long to wait after so many failures in a row.

        Cameras that went down together should not be asked together for ever.
        """
        timing = self._timing
        longest = min(timing.longest_wait, timing.first_wait * 2.0 ** min(failures, 30))
        return random.uniform(0.75, 1.0) * longest

    def _hear(self, connection: Connection, sample_rate: int) -> Iterator[np.ndarray | Gap]:
        pieces = self._pieces(connection)
        for is_gap, group in itertools.groupby(pieces, lambda piece: isinstance(piece, Gap)):
            if is_gap:
                yield from group
                continue
            yield from mono_blocks(
                (piece for piece in group if not isinstance(piece, Gap)),
                connection.info,
                sample_rate=sample_rate,
                channel=self._channel,
                warn=self._warn,
            )

    def _pieces(self, connection: Connection) -> Iterator[np.ndarray | Gap]:
        """Yields frames [s, channels] and gaps until the connection ends, hangs or is stopped."""
        is_first, last_byte = True, time.monotonic()
        while not self._stop.is_set():
            piece = connection.read(_POLL_SECONDS)
            now = time.monotonic()
            if piece is None:
                return
            if isinstance(piece, Gap):
                yield piece
                continue
            if not len(piece):
                if connection.is_waiting:
                    last_byte = now
                elif now - last_byte > (self._timing.start if is_first else self._timing.stall):
                    connection.problem = f"no sound for {now - last_byte:.0f} s"
                    return
                continue
            last_byte, seconds = now, len(piece) / connection.info.rate
            if is_first and self._heard_until is not None:
                lost = now - seconds - self._heard_until
                if lost > 0:
                    yield Gap(lost)
            if is_first:
                self._set(up=True, error="")
            is_first, self._heard_until = False, now
            self._look_at(piece, seconds)
            yield piece

    def _look_at(self, frames: np.ndarray, seconds: float) -> None:
        peak = float(np.abs(frames).max())
        self._zeros = self._zeros + seconds if peak == 0.0 else 0.0
        self._unclipped = 0.0 if peak >= _CLIPPED else self._unclipped + seconds
        is_clipped = peak >= _CLIPPED or (self._status.clipped and self._unclipped < 1.0)
        self._set(silent=self._zeros >= self._timing.silence, clipped=is_clipped)

    def _warn(self, text: str) -> None:
        self._set(error=text)

    def _set(self, **changes: Any) -> None:
        self._status = dataclasses.replace(self._status, **changes)


class Int16Frames:
    """Cuts bytes into whole frames of 16-bit samples."""

    def __init__(self, channels: int, kind: str) -> None:
        """Starts without bytes.

        Args:
          channels: of the interleaved samples.
          kind: NumPy's name of their type, such as "<i2".
        """
        self._channels, self._kind, self._rest = channels, kind, b""

    def push(self, data: bytes) -> np.ndarray:
        """Takes bytes, cut anywhere, and returns float32 [s, channels] in [-1, 1)."""
        data = self._rest + data
        whole = len(data) - len(data) % (2 * self._channels)
        self._rest = data[whole:]
        samples = np.frombuffer(data[:whole], self._kind).astype(np.float32)
        return (samples * np.float32(1 / 32_768)).reshape(-1, self._channels)
