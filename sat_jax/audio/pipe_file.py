"""A pipe as a file object for libsndfile."""

import os
from collections.abc import Iterator
from typing import IO, Any

import numpy as np

from sat_jax.audio.libsndfile import ForwardFile
from sat_jax.runtime.live_input import read_input

READ_BYTES = 1 << 16
_KEPT_BEHIND = 1 << 16
_LENGTH = 1 << 60
_ID3V1_BYTES = 128


class PipeFile:
    """What a pipe brings, as a file that can go back a little, and whose end is far away.

    libsndfile calls it through C, where an exception would be lost: `check` raises it.

    Attributes:
      reach: how many bytes it may skip that have not come yet. What lies behind reads as the end:
        libsndfile also looks behind the samples, for which it would have to wait.
      stop: where the file seems to end.
      is_eager: whether a read returns what is there, instead of waiting for all it asked for.
      short_at: where a read of samples began that got too little, as the pipe ended; None before.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        """Starts where the stream is."""
        # A thread that waits in a buffered reader would keep Python from ending.
        self._stream = getattr(stream, "raw", stream)
        self._bytes = bytearray()
        self._begin = 0  # The position of the first byte that is kept.
        self._position = 0
        self._is_at_end = False
        self._stopped: BaseException | None = None
        self._keeps_all = True
        self.reach = READ_BYTES
        self.stop = _LENGTH
        self.is_eager = False
        self.short_at: int | None = None

    def peek(self, size: int) -> bytes:
        """Returns bytes from the beginning on, as many as asked for unless the pipe ends."""
        self._fill(size)
        return bytes(self._bytes[:size])

    def begin_here(self) -> None:
        """Makes the position the file's beginning."""
        del self._bytes[: self._position - self._begin]
        self._begin = self._position = 0
        self._keeps_all = True
        self.stop = _LENGTH

    def around(self, behind: int, ahead: int) -> tuple[bytes, int]:
        """Returns the bytes around the position, and the index of the position in them."""
        self._fill(self._position + ahead)
        place = self._position - self._begin
        first = max(0, place - behind)
        return bytes(self._bytes[first : place + ahead]), place - first

    def replace(self, position: int, content: bytes) -> None:
        """Changes bytes that have come, counted from the beginning."""
        self._bytes[position : position + len(content)] = content

    def pieces(self) -> Iterator[bytes]:
        """Yields all bytes from the beginning on, as they come."""
        yield bytes(self._bytes)
        self._bytes.clear()
        while data := self._receive():
            yield data

    def forget(self) -> None:
        """Keeps only the last bytes from here on."""
        self._keeps_all = False
        self.short_at = None

    def check(self) -> None:
        """Raises what interrupted a read."""
        if self._stopped is not None:
            raise self._stopped

    def read(self, size: int) -> bytes:
        """Returns the next bytes."""
        if self._position >= _LENGTH - _ID3V1_BYTES:
            return bytes(size)  # The MP3 decoder looks for a tag at the end.
        size = min(size, self.stop - self._position)
        is_far = self._position > self._begin + len(self._bytes) + self.reach
        if size <= 0 or is_far:
            return b""
        try:
            self._fill(self._position + (min(size, 1) if self.is_eager else size))
        except BaseException as error:
            self._stopped = error
            return b""
        first = self._position - self._begin
        data = bytes(self._bytes[first : first + size]) if first >= 0 else b""
        if len(data) < size and not self.is_eager and self.short_at is None:
            self.short_at = self._position
        self._position += len(data)
        if not self._keeps_all and first > _KEPT_BEHIND + READ_BYTES:
            del self._bytes[: first - _KEPT_BEHIND]
            self._begin += first - _KEPT_BEHIND
        return data

    def tell(self) -> int:
        """Returns the position."""
        return self._position

    def seek(self, position: int, whence: int = os.SEEK_SET) -> int:
        """Changes the position."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: _LENGTH}[whence]
        self._position = start + position
        return self._position

    def _fill(self, end: int) -> None:
        """Waits for the bytes up to a position."""
        self.check()
        while self._begin + len(self._bytes) < end and not self._is_at_end:
            data = self._receive()
            self._bytes += data
            self._is_at_end = not data

    def _receive(self) -> bytes:
        return read_input(self._stream, READ_BYTES)


class PipeSound(ForwardFile):
    """The sound in a `PipeFile`. What interrupts a read, such as Ctrl-C, is raised by it."""

    def __init__(self, pipe: PipeFile, **options: Any) -> None:
        """Opens the sound; see `soundfile.SoundFile`."""
        self._pipe = pipe
        try:
            super().__init__(pipe, **options)
        finally:
            pipe.check()

    def read(self, *args: Any, **options: Any) -> np.ndarray:
        """Reads frames; see `soundfile.SoundFile.read`."""
        try:
            return super().read(*args, **options)
        finally:
            self._pipe.check()
