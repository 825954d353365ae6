"""A stretch of a file as a file object."""

import io
import os
from typing import BinaryIO


class View(io.RawIOBase):
    """The bytes of a file from `begin` to `end`, behind another header if one is given.

    libsndfile reads files of one sound only, and believes their header. A view gives it one sound
    of a file, and a header that says how long it really is.
    """

    def __init__(self, file: BinaryIO, begin: int, end: int, header: bytes = b"") -> None:
        """Starts at the beginning.

        Args:
          file: an unbuffered file. Views of it may be used in turn.
          begin: the first byte of the view behind `header`.
          end: one past the last byte.
          header: bytes that come before those of the file.
        """
        self._file = file
        self._header = header
        self._shift = begin - len(header)
        self._end = max(end, begin)
        self._position = 0

    @property
    def place(self) -> int:
        """The position in the file that was read up to."""
        return min(self._position + self._shift, self._end)

    def readinto(self, buffer) -> int:  # type: ignore[no-untyped-def]
        """Fills a buffer; returns the number of bytes, which is less only at the end."""
        target = memoryview(buffer)
        head = self._header[self._position : self._position + len(target)]
        target[: len(head)] = head
        self._position += len(head)
        wanted = min(len(target) - len(head), self._end - self._shift - self._position)
        got = 0
        if wanted > 0:
            self._file.seek(self._position + self._shift)
            got = self._file.readinto(target[len(head) : len(head) + wanted])  # type: ignore[attr-defined]
        self._position += got
        return len(head) + got

    def tell(self) -> int:
        """Returns the position."""
        return self._position

    def seek(self, position: int, whence: int = os.SEEK_SET) -> int:
        """Changes the position."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._length()}[whence]
        self._position = max(0, start + position)
        return self._position

    def _length(self) -> int:
        return self._end - self._shift


def read_at(file: BinaryIO, position: int, size: int) -> bytes:
    """Returns up to `size` bytes of a file from `position` on."""
    file.seek(position)
    return file.read(size)
