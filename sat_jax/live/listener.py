"""Listens to one source, and shows what is heard as it is heard."""

import queue
import threading
import time
from collections.abc import Iterator
from typing import Protocol

import numpy as np

from sat_jax.errors import SatError
from sat_jax.live.heard_stream import MAX_BRIDGED_SECONDS, Heard, HeardStream
from sat_jax.live.sources import Gap, Source, SourceStatus

_TICK_SECONDS = 0.1
_WAITING_PIECES = 16


class Audience(Protocol):
    """Those who are shown what is heard."""

    def show(self, heard: Heard) -> None:
        """Shows what was heard next."""
        ...

    def tick(self, status: SourceStatus) -> None:
        """Is called ten times a second, whether something is heard or not."""
        ...


def listen(
    source: Source,
    stream: HeardStream,
    audience: Audience,
    *,
    sample_rate: int = 16_000,
    stale_after: float = MAX_BRIDGED_SECONDS,
) -> None:
    """Follows a source until it ends or is stopped.

    Args:
      source: what to listen to.
      stream: scores its sound.
      audience: is shown what is heard, and then that all events have ended.
      sample_rate: of the stream, Hz.
      stale_after: without sound for so many seconds, events end.

    Raises:
      SatError: see `Source.sound`; what was heard before has been shown.
    """
    receiver = _Receiver(source, sample_rate)
    is_stale, last, status = True, time.monotonic(), source.status
    try:
        while True:
            piece, arrived = receiver.get(_TICK_SECONDS)
            if receiver.is_at_end:
                break
            status = source.status
            if isinstance(piece, Gap):
                _show(audience, stream.lose(piece.seconds))
            elif piece is not None:
                _show(audience, stream.push(piece, arrived))
                is_stale, last = False, time.monotonic()
            elif not is_stale and time.monotonic() - last >= stale_after:
                _show(audience, stream.interrupt("no_signal"))
                is_stale = True
            audience.tick(status)
    finally:
        source.stop()
    _show(audience, stream.interrupt("closed"))
    audience.tick(status)
    receiver.check()


def _show(audience: Audience, heard: Iterator[Heard]) -> None:
    for each in heard:
        audience.show(each)


class _Receiver:
    """Reads a source in a thread, so that its silence delays nothing."""

    def __init__(self, source: Source, sample_rate: int) -> None:
        self.is_at_end = False
        self._problem: SatError | None = None
        self._pieces = queue.Queue[tuple[np.ndarray | Gap | None, float]](_WAITING_PIECES)
        arguments = (source, sample_rate)
        threading.Thread(target=self._receive, args=arguments, daemon=True).start()

    def get(self, seconds: float) -> tuple[np.ndarray | Gap | None, float]:
        """Returns the next piece and when it arrived; None if there is none in time."""
        try:
            piece, arrived = self._pieces.get(timeout=seconds)
        except queue.Empty:
            return None, 0.0
        self.is_at_end = piece is None
        return piece, arrived

    def check(self) -> None:
        """Raises the error that ended the source, if one did."""
        if self._problem is not None:
            raise self._problem

    def _receive(self, source: Source, sample_rate: int) -> None:
        try:
            for piece in source.sound(sample_rate):
                self._pieces.put((piece, time.time()))
        except SatError as error:
            self._problem = error
        self._pieces.put((None, time.time()))
