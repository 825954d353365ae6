"""Ogg files up to the first page that is not as it was written.

libsndfile leaves out damaged pages without a word, so that what follows gets wrong times.
"""

import os
import zlib
from typing import BinaryIO

from sat_jax.audio.headers import WAY_OUT

_HEADER_BYTES = 27
_FIRST, _LAST = 2, 4  # Flags of the pages that begin and end a stream.
_NO_SOUND = (0, 2**64 - 1)  # Positions on pages of headers, and on pages in which no packet ends.
_CHAINED = "libsndfile reads the first one alone: convert the file to WAV"
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def is_ogg(file: BinaryIO) -> bool:
    """Whether a file begins with an Ogg page."""
    file.seek(0)
    return file.read(4) == b"OggS"


class WholePages:
    """An Ogg file that ends where its damage begins, as an object that SoundFile can read.

    Pages are checked as they are read, so that an answer need not wait for all of a long file.

    Attributes:
      damage: what is wrong with it as far as it was read, and the way out; "" if nothing is.
    """

    def __init__(self, file: BinaryIO, again: BinaryIO) -> None:
        """Begins at the file's start.

        Args:
          file: what is handed on, unbuffered.
          again: the same file, for the checks.
        """
        self.damage = ""
        self._file = file
        self._pages = again
        self._checked = 0
        self._is_over = False  # Nothing is left to check.
        self._open: dict[bytes, _Stream] = {}
        self.seek(0)

    def read(self, size: int) -> bytes:
        """The next bytes; none behind the damage."""
        start = self._file.tell()
        # What is far ahead is only looked at: the last page tells how long the sound is.
        if start <= self._checked:
            self.check(start + size)
        return self._file.read(max(0, min(size, self._checked - start)) if self.damage else size)

    def tell(self) -> int:
        """The position."""
        return self._file.tell()

    def seek(self, position: int, whence: int = os.SEEK_SET) -> int:
        """Goes somewhere else."""
        return self._file.seek(position, whence)

    def check(self, end: int | None = None) -> None:
        """Checks all pages that begin before byte `end`; None means one page more."""
        end = self._checked + 1 if end is None else end
        while self._checked < end and not self._is_over and not self.damage:
            self.damage = self._check_page()

    def _check_page(self) -> str:
        """Goes on by one page unless it is damaged: then what is wrong."""
        header = self._pages.read(_HEADER_BYTES)
        where = f"at byte {self._checked}"
        if not header or (not self._open and self._checked and not header.startswith(b"OggS")):
            self._is_over = True  # Behind the last page there may be what belongs to no stream.
            return ""
        if not header.startswith(b"OggS"[: len(header)]):
            return f"damaged: no Ogg page begins {where}: {WAY_OUT}"
        lengths = self._pages.read(header[-1]) if len(header) == _HEADER_BYTES else b""
        body = self._pages.read(sum(lengths))
        if len(header) < _HEADER_BYTES or len(lengths) < header[-1] or len(body) < sum(lengths):
            return f"truncated: it ends in the middle of an Ogg page: {WAY_OUT}"
        if _checksum(header[:22] + bytes(4) + header[26:] + lengths + body) != header[22:26]:
            return f"damaged: the Ogg page {where} is not as it was written: {WAY_OUT}"
        flags, serial = header[5], header[14:18]
        if flags & _FIRST and self._checked and self._is_heard():
            return f"only read up to byte {self._checked}, where another stream begins: {_CHAINED}"
        if not self._is_next(header):
            return f"damaged: Ogg pages before byte {self._checked} are missing: {WAY_OUT}"
        if flags & _LAST:
            self._open.pop(serial, None)
        self._checked += _HEADER_BYTES + len(lengths) + len(body)
        return ""

    def _is_heard(self) -> bool:
        """Whether a stream was heard already: those side by side begin before any is."""
        return not self._open or any(stream.has_sound for stream in self._open.values())

    def _is_next(self, header: bytes) -> bool:
        """Takes a page as the next of its stream; False if pages before it are missing."""
        position, number = (
            int.from_bytes(part, "little") for part in (header[6:14], header[18:22])
        )
        stream = self._open.setdefault(header[14:18], _Stream(number - 1))
        # Who joins a live stream gets its headers, and then pages with any number.
        if stream.has_sound and number != stream.number + 1:
            return False
        stream.number = number
        stream.has_sound |= position not in _NO_SOUND
        return True


class _Stream:
    """Where one of the streams in a file has got to."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.has_sound = False


def _checksum(page: bytes) -> bytes:
    """Ogg's CRC-32, by zlib's, whose bits run the other way and which begins with ones."""
    value = zlib.crc32(page.translate(_REVERSED), 0xFFFF_FFFF) ^ 0xFFFF_FFFF
    return value.to_bytes(4, "big").translate(_REVERSED)
