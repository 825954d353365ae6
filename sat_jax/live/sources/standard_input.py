"""Standard input: what another program pipes into this one."""

import sys
import threading
from collections.abc import Iterator
from typing import IO, cast

import numpy as np

from sat_jax.audio import read_live_blocks
from sat_jax.errors import SatError
from sat_jax.live.sources.inbox import Inbox
from sat_jax.live.sources.source import Gap, SourceStatus

_NAME = "standard input"
_READ_BYTES = 1 << 14
_WAITING_PIECES = 8
_POLL_SECONDS = 0.1


class StandardInput:
    """A file of any format or raw samples, see `sat_jax.audio.read_live_blocks`."""

    def __init__(self, *, channel: int | None = None) -> None:
        """Checks standard input.

        Args:
          channel: see `sat_jax.live.sources.open_source`.

        Raises:
          SatError: it is closed or a terminal.
        """
        if sys.stdin is None:
            raise SatError(f"{_NAME} is closed: pipe sound into it")
        if sys.stdin.isatty():
            raise SatError(f"{_NAME} is the terminal: pipe sound into it")
        self.status = SourceStatus()
        self._channel = channel
        self._pipe = _StoppablePipe(sys.stdin.buffer)

    def stop(self) -> None:
        """Ends `sound` within a second."""
        self._pipe.is_stopped.set()

    def sound(self, sample_rate: int) -> Iterator[np.ndarray | Gap]:
        """Yields its sound, see `sat_jax.live.sources.Source.sound`."""
        self._pipe.start()
        blocks = read_live_blocks(
            cast(IO[bytes], self._pipe),
            name=_NAME,
            sample_rate=sample_rate,
            channel=self._channel,
            warn=self._warn,
        )
        try:
            for block in blocks:
                if not self.status.up:
                    self.status = SourceStatus(up=True)
                yield block
        except SatError:
            if not self._pipe.is_stopped.is_set():  # Who stops it does not miss the rest.
                raise
        finally:
            self.status = SourceStatus(error=self.status.error)

    def _warn(self, text: str) -> None:
        self.status = SourceStatus(up=self.status.up, error=text)


class _StoppablePipe:
    """A pipe whose reader can be released while it waits: as much of a file as is read here."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.is_stopped = threading.Event()
        # A thread that waits in a buffered reader would keep Python from ending.
        self._stream: IO[bytes] = getattr(stream, "raw", stream)
        self._inbox = Inbox(_WAITING_PIECES)

    def start(self) -> None:
        threading.Thread(target=self._receive, daemon=True).start()

    def read(self, size: int) -> bytes:
        del size  # Pieces are as small as any reader asks for.
        data: bytes | None = b""
        while data == b"" and not self.is_stopped.is_set():
            data = self._inbox.get(_POLL_SECONDS)
        return data or b""

    def _receive(self) -> None:
        while data := self._stream.read(_READ_BYTES):
            if not self._inbox.put(data):
                return
        self._inbox.end("")
