"""Small microphones: raw 16-bit samples over TCP."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from urllib.parse import parse_qsl

import numpy as np

from sat_jax.audio.mono import SoundInfo
from sat_jax.config import MAX_RATE, MIN_RATE
from sat_jax.errors import SatError
from sat_jax.live.sources.addresses import shown_address, split_address
from sat_jax.live.sources.inbox import Inbox
from sat_jax.live.sources.reconnecting import (
    Connection,
    Int16Frames,
    LostError,
    ReconnectingSource,
    Timing,
)
from sat_jax.live.sources.source import Gap

_READ_BYTES = 1 << 14
_WAITING_PIECES = 64
_POLL_SECONDS = 0.2
_SETTINGS = {"rate": (16_000, MIN_RATE, MAX_RATE), "channels": (1, 1, 64), "listen": (0, 0, 1)}
"""Default, least and most of each setting in the URL."""


class TcpSource(ReconnectingSource):
    """A microphone that is connected to, or that connects by itself."""

    def __init__(self, url: str, *, channel: int | None = None, timing: Timing | None = None):
        """Checks the URL.

        Args:
          url: see `sat_jax.live.sources.open_source`.
          channel: see `sat_jax.live.sources.open_source`.
          timing: how patient it is.

        Raises:
          SatError: the URL is wrong.
        """
        super().__init__(channel=channel, timing=timing or Timing())
        parts, name = split_address(url), shown_address(url)
        if parts.port is None:
            raise SatError(f"{name}: has no port: use tcp://HOST:PORT?rate=16000&channels=1")
        if parts.path or parts.username or parts.fragment:
            raise SatError(f"{name}: use tcp://HOST:PORT?rate=16000&channels=1, and nothing else")
        assert parts.hostname is not None
        self._address = (parts.hostname, parts.port)
        settings = _read_settings(name, parts.query)
        self._listens = bool(settings["listen"])
        self._info = SoundInfo(name=name, rate=settings["rate"], channels=settings["channels"])
        self._listener: socket.socket | None = None

    def sound(self, sample_rate: int) -> Iterator[np.ndarray | Gap]:
        """Yields its sound, see `sat_jax.live.sources.Source.sound`."""
        try:
            yield from super().sound(sample_rate)
        finally:
            if self._listener is not None:
                self._listener.close()

    def _connect(self) -> Connection:
        if self._listens and self._listener is None:
            # Kept open in between, so that a microphone can come back at any time.
            self._listener = self._listen()
        return _Tcp(self._address, self._info, self._listener, self._timing.stall)

    def _listen(self) -> socket.socket:
        try:
            family = socket.AF_INET6 if ":" in self._address[0] else socket.AF_INET
            listener = socket.create_server(self._address, family=family, backlog=1)
        except OSError as error:
            raise LostError(f"cannot listen there: {error.strerror or error}") from error
        listener.settimeout(_POLL_SECONDS)
        return listener

    def _wait_seconds(self, failures: int) -> float:
        return super()._wait_seconds(failures) if self._listener is None else 0.0


class _Tcp:
    """One connection."""

    def __init__(
        self,
        address: tuple[str, int],
        info: SoundInfo,
        listener: socket.socket | None,
        timeout: float,
    ) -> None:
        self.info = info
        self.is_waiting = listener is not None
        self.problem = ""
        self._address, self._listener, self._timeout = address, listener, timeout
        self._frames = Int16Frames(info.channels, "<i2")
        self._inbox = Inbox(_WAITING_PIECES)
        self._is_closed = threading.Event()
        self._thread = threading.Thread(target=self._receive, daemon=True)
        self._thread.start()

    def read(self, seconds: float) -> np.ndarray | Gap | None:
        data = self._inbox.get(seconds)
        if data is None:
            self.problem = self.problem or self._inbox.problem
            return None
        return self._frames.push(data)

    def close(self) -> None:
        self._is_closed.set()
        self._inbox.close()
        if self._listener is not None:
            self._thread.join()  # Only one may wait for a microphone.

    def _receive(self) -> None:
        problem = "the connection was closed"
        try:
            with contextlib.closing(self._open()) as connection:
                self.is_waiting = False
                connection.settimeout(_POLL_SECONDS)
                while not self._is_closed.is_set():
                    with contextlib.suppress(TimeoutError):
                        data = connection.recv(_READ_BYTES)
                        if not data or not self._inbox.put(data):
                            break
        except OSError as error:
            problem = error.strerror or str(error)
        self._inbox.end(problem)

    def _open(self) -> socket.socket:
        """Connects, or waits for a microphone to connect."""
        if self._listener is None:
            return socket.create_connection(self._address, self._timeout)
        while not self._is_closed.is_set():
            with contextlib.suppress(TimeoutError):
                return self._listener.accept()[0]
        raise OSError("closed")


def _read_settings(name: str, query: str) -> dict[str, int]:
    settings = {key: default for key, (default, _, _) in _SETTINGS.items()}
    for key, text in parse_qsl(query, keep_blank_values=True):
        if key not in _SETTINGS:
            raise SatError(f"{name}: unknown setting {key!r}: use {', '.join(_SETTINGS)}")
        _, least, most = _SETTINGS[key]
        if not (text.isascii() and text.isdecimal() and least <= int(text) <= most):
            raise SatError(f"{name}: {key}={text}: use a whole number from {least} to {most}")
        settings[key] = int(text)
    return settings
