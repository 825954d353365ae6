"""FLAC streams: the length in their header, and where the next stream of a file begins."""

import functools
import re
from typing import BinaryIO

from sat_jax.audio.view import View, read_at

_SIGNATURE = b"fLaC"
_START = re.compile(rb"fLaC[\x00\x80]\x00\x00\x22")
_START_BYTES = 8
_BLOCK_BYTES = 1 << 18
_LENGTH_BEGIN, _LENGTH_END = 21, 26  # The lower 36 bits are the length.


def read_length(file: BinaryIO, begin: int) -> int | None:
    """Returns the number of samples by the header of a FLAC stream; None if it does not say."""
    header = read_at(file, begin, _LENGTH_END)
    return int.from_bytes(header[_LENGTH_BEGIN:]) & ((1 << 36) - 1) or None


@functools.lru_cache(maxsize=1 << 16)
def find_end(name: str, begin: int, end: int, changed: int) -> int:
    """Returns where the next FLAC stream of a file begins; `end` if there is none.

    A seek needs it: libFLAC would find a sample of the wrong stream. Reading a file for it takes
    less time than decoding a part, but training does so again and again.

    Args:
      name: the file's path.
      begin: where the stream begins.
      end: where the file's last sound ends.
      changed: time of the file's last change, so that an older result is not used.
    """
    del changed
    with open(name, "rb", buffering=0) as file:
        view = FlacView(file, begin, end, hides_length=False)
        view.skip()
        return view.end


class FlacView(View):
    """A FLAC stream, which ends where another one begins."""

    def __init__(self, file: BinaryIO, begin: int, end: int, *, hides_length: bool) -> None:
        """Starts at the beginning.

        Args:
          file: see `View`.
          begin: see `View`.
          end: see `View`.
          hides_length: clears the length in the header, so that libsndfile reads all frames. It
            cannot seek then.
        """
        header = bytearray(read_at(file, begin, _LENGTH_END))
        if hides_length and len(header) == _LENGTH_END:
            header[_LENGTH_BEGIN:] = bytes([header[_LENGTH_BEGIN] & 0xF0, 0, 0, 0, 0])
        super().__init__(file, begin + len(header), end, bytes(header))
        self._begin = begin
        self._tail, self._tail_end = b"", -1  # What was read last, and up to where.

    @property
    def end(self) -> int:
        """Where in the file this stream ends, as far as that was read."""
        return self._end

    def skip(self) -> None:
        """Reads up to the end."""
        block = bytearray(_BLOCK_BYTES)
        while self.readinto(block):
            pass

    def readinto(self, buffer) -> int:  # type: ignore[no-untyped-def]
        """Fills a buffer; see `View.readinto`."""
        place = self.place
        got = super().readinto(buffer)
        tail = self._tail if self._tail_end == place else b""
        content = tail + bytes(buffer[:got])
        first = place - len(tail)
        start = content.find(_SIGNATURE, 1 if first == self._begin else 0)
        if start >= 0 and _START.match(content, start):
            self._end = first + start
            got = max(0, self._end - place)
            self._position = self._end - self._shift
        self._tail, self._tail_end = content[1 - _START_BYTES :], place + got
        return got
