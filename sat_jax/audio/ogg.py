"""Checks the pages of Ogg files, and ends a file at the first damaged page.

libsndfile skips damaged pages without an error, so that all later samples get wrong times.
"""

import os
import zlib
from typing import BinaryIO

from sat_jax.audio.headers import ADVICE

_HEADER_BYTES = 27
_FIRST, _LAST = 2, 4  # Flags of a stream's first and last page.
_NO_SOUND = (0, 2**64 - 1)  # Positions of header pages, and of pages in which no packet ends.
_CHAINED = "libsndfile reads only the first stream: convert the file to WAV"
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def is_ogg(file: BinaryIO) -> bool:
    """Whether a file begins with an Ogg page."""
    file.seek(0)
    return file.read(4) == b"OggS"


class CheckedOgg:
    """A file object of an Ogg file, which ends at the first damaged page.

    Each page is checked when it is read, so that a long file is tagged at once.

    Attributes:
      damage: the damage found so far, with advice; "" if there is none.
    """

    def __init__(self, file: BinaryIO, again: BinaryIO) -> None:
        """Starts at the beginning of the file.

        Args:
          file: the file that is read, unbuffered.
          again: the same file opened again, for the checks.
        """
        self.damage = ""
        self._file = file
        self._pages = again
        self._checked = 0  # Bytes up to the end of the last good page.
        self._is_done = False
        self._open: dict[bytes, _Stream] = {}
        self.seek(0)

    def read(self, size: int) -> bytes:
        """Returns the next bytes; none after damage."""
        start = self._file.tell()
        # libsndfile also looks far ahead, at the last page, for the length.
        if start <= self._checked:
            self._check_up_to(start + size)
        return self._file.read(max(0, min(size, self._checked - start)) if self.damage else size)

    def tell(self) -> int:
        """Returns the position."""
        return self._file.tell()

    def seek(self, position: int, whence: int = os.SEEK_SET) -> int:
        """Changes the position."""
        return self._file.seek(position, whence)

    def check_next_page(self) -> None:
        """Checks the page after those that were read."""
        self._check_up_to(self._checked + 1)

    def _check_up_to(self, end: int) -> None:
        """Checks all pages that begin before byte `end`."""
        while self._checked < end and not self._is_done and not self.damage:
            self.damage = self._check_page()

    def _check_page(self) -> str:
        """Checks the next page; returns its damage, or "" and steps over it."""
        header = self._pages.read(_HEADER_BYTES)
        where = f"at byte {self._checked}"
        if not header or (not self._open and self._checked and not header.startswith(b"OggS")):
            self._is_done = True  # Tags or the like may follow the last page.
            return ""
        if not header.startswith(b"OggS"[: len(header)]):
            return f"damaged: no Ogg page begins {where}: {ADVICE}"
        lengths = self._pages.read(header[-1]) if len(header) == _HEADER_BYTES else b""
        body = self._pages.read(sum(lengths))
        if len(header) < _HEADER_BYTES or len(lengths) < header[-1] or len(body) < sum(lengths):
            return f"truncated: it ends in the middle of an Ogg page: {ADVICE}"
        if _checksum(header[:22] + bytes(4) + header[26:] + lengths + body) != header[22:26]:
            return f"damaged: the Ogg page {where} has a wrong checksum: {ADVICE}"
        flags, serial = header[5], header[14:18]
        if flags & _FIRST and self._checked and self._has_sound():
            return f"only read up to byte {self._checked}, where another stream begins: {_CHAINED}"
        if not self._is_next(header):
            return f"damaged: Ogg pages before byte {self._checked} are missing: {ADVICE}"
        if flags & _LAST:
            self._open.pop(serial, None)
        self._checked += _HEADER_BYTES + len(lengths) + len(body)
        return ""

    def _has_sound(self) -> bool:
        """Whether samples were read already; parallel streams all begin before the samples."""
        return not self._open or any(stream.has_sound for stream in self._open.values())

    def _is_next(self, header: bytes) -> bool:
        """Steps to the next page of a stream; returns False if pages before it are missing."""
        position, number = (
            int.from_bytes(part, "little") for part in (header[6:14], header[18:22])
        )
        stream = self._open.setdefault(header[14:18], _Stream(number - 1))
        # A live stream that was joined late has its headers, then pages from any number on.
        if stream.has_sound and number != stream.number + 1:
            return False
        stream.number = number
        stream.has_sound |= position not in _NO_SOUND
        return True


class _Stream:
    """The last page of a stream, and whether it held samples yet."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.has_sound = False


def _checksum(page: bytes) -> bytes:
    """Returns Ogg's CRC-32, computed by zlib's, which reverses bits and starts with ones."""
    value = zlib.crc32(page.translate(_REVERSED), 0xFFFF_FFFF) ^ 0xFFFF_FFFF
    return value.to_bytes(4, "big").translate(_REVERSED)
