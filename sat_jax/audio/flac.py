"""FLAC streams: the length in their header, and where the next stream of a file begins."""

import functools
import re
from typing import BinaryIO

import soundfile

from sat_jax.audio.libsndfile import UnreadableError, open_view
from sat_jax.audio.view import View, read_at

_START = re.compile(rb"fLaC[\x00\x80]\x00\x00\x22")
_START_BYTES = 8
_BLOCK_BYTES = 1 << 16
_LENGTH_BEGIN, _LENGTH_END = 21, 26  # The lower 36 bits are the length.


def read_length(file: BinaryIO, begin: int) -> int | None:
    """Returns the number of samples by the header of a FLAC stream; None if it does not say."""
    header = read_at(file, begin, _LENGTH_END)
    return int.from_bytes(header[_LENGTH_BEGIN:]) & ((1 << 36) - 1) or None


@functools.lru_cache(maxsize=1 << 16)
def measure(name: str, begin: int, end: int, changed: int) -> tuple[int, int | None]:
    """Finds out where a FLAC stream ends, and its length, without decoding all of it.

    A seek needs to know the end: libFLAC might find a sample of another stream. The result is
    kept, since training reads a file again and again.

    Args:
      name: the file's path.
      begin: where the stream begins.
      end: where the file's last sound ends.
      changed: time of the file's last change.

    Returns:
      Where the next stream begins; `end` if there is none. The number of samples; None if the
      header has none or a wrong one, or if another stream follows.
    """
    del changed
    with open(name, "rb", buffering=0) as file:
        length = read_length(file, begin)
        scan = FlacView(file, begin, end)
        scan.skip()
        if length is None or scan.end < end:
            return scan.end, None
        view = View(file, begin, end)
        try:
            with open_view(view) as sound:
                sound.seek(length - 1)
                is_last = len(sound.read(1)) == 1 and view.place == end
        except (UnreadableError, soundfile.LibsndfileError):
            is_last = False
        return end, length if is_last else None


class FlacView(View):
    """A FLAC stream, which ends where another one begins.

    Its header has no length, so that libsndfile reads all frames. Therefore it cannot seek.
    """

    def __init__(self, file: BinaryIO, begin: int, end: int) -> None:
        """Starts at the beginning; see `View`."""
        header = bytearray(read_at(file, begin, _LENGTH_END))
        if len(header) == _LENGTH_END:
            header[_LENGTH_BEGIN:] = bytes([header[_LENGTH_BEGIN] & 0xF0, 0, 0, 0, 0])
        super().__init__(file, begin + len(header), end, bytes(header))
        self._block, self._block_begin = b"", 0

    @property
    def end(self) -> int:
        """Where in the file this stream ends, as far as that was read."""
        return self._end

    def skip(self) -> None:
        """Reads up to the end, then returns to the beginning."""
        block = bytearray(_BLOCK_BYTES)
        while self.readinto(block):
            pass
        self.seek(0)

    def readinto(self, buffer) -> int:  # type: ignore[no-untyped-def]
        """Fills a buffer; see `View.readinto`."""
        wanted, first = len(buffer), self._position - self._block_begin
        if first < 0 or first + wanted > len(self._block):
            self._read_block()
            first = 0
        content = self._block[first : first + wanted]
        buffer[: len(content)] = content
        self._position += len(content)
        return len(content)

    def _read_block(self) -> None:
        """Reads ahead from the position, up to the next stream."""
        place, begin = self.place, self._position
        block = bytearray(_BLOCK_BYTES + _START_BYTES - 1)  # A start may lie across its end.
        content = bytes(block[: super().readinto(block)])
        self._position = self._block_begin = begin
        if start := _START.search(content, 0 if begin else 1):
            self._end = place + start.start()
            content = content[: start.start()]
        self._block = content[:_BLOCK_BYTES]
