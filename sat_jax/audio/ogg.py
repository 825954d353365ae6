"""Checks the pages of Ogg files, and finds the end of a stream.

libsndfile skips damaged pages without an error, so that all later samples get wrong times. It reads
only the first of several streams.
"""

import zlib
from typing import BinaryIO

from sat_jax.audio.view import read_at

_HEADER_BYTES = 27
_FIRST, _LAST = 2, 4  # Flags of a stream's first and last page.
_NO_SOUND = (0, 2**64 - 1)  # Positions of header pages, and of pages in which no packet ends.
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def find_stream(file: BinaryIO, begin: int, end: int) -> tuple[int, str]:
    """Finds the end of an Ogg stream, or of several parallel ones.

    Args:
      file: an unbuffered file.
      begin: position of the first page.
      end: position behind the last page.

    Returns:
      Position behind the last page that is good, and the damage there; "" if there is none.
    """
    position = begin
    streams: dict[bytes, _Stream] = {}
    while position < end:
        header = read_at(file, position, _HEADER_BYTES)
        if not streams and position > begin and not header.startswith(b"OggS"):
            break  # Tags or the like may follow the last page.
        if not header.startswith(b"OggS"[: len(header)]):
            return position, f"no Ogg page begins at byte {position}"
        lengths = file.read(header[-1]) if len(header) == _HEADER_BYTES else b""
        page = header + lengths + file.read(sum(lengths))
        if len(page) < _HEADER_BYTES + header[-1] + sum(lengths) or position + len(page) > end:
            return position, "it ends in the middle of an Ogg page"
        if _checksum(page[:22] + bytes(4) + page[26:]) != page[22:26]:
            return position, f"the Ogg page at byte {position} has a wrong checksum"
        flags, serial = header[5], header[14:18]
        has_sound = not streams or any(stream.has_sound for stream in streams.values())
        if flags & _FIRST and position > begin and has_sound:
            break  # Parallel streams all begin before the samples, so this one follows.
        stream = streams.setdefault(serial, _Stream(header))
        if not stream.go_on(header):
            return position, f"Ogg pages before byte {position} are missing"
        if flags & _LAST:
            del streams[serial]
        position += len(page)
    return position, ""


class _Stream:
    """The number of a stream's last page, and whether it held samples yet."""

    def __init__(self, header: bytes) -> None:
        self._number = int.from_bytes(header[18:22], "little") - 1
        self.has_sound = False

    def go_on(self, header: bytes) -> bool:
        """Steps to the next page; returns False if pages before it are missing."""
        number = int.from_bytes(header[18:22], "little")
        # A live stream that was joined late has its headers, then pages from any number on.
        if self.has_sound and number != self._number + 1:
            return False
        self._number = number
        self.has_sound |= int.from_bytes(header[6:14], "little") not in _NO_SOUND
        return True


def _checksum(page: bytes) -> bytes:
    """Returns Ogg's CRC-32, computed by zlib's, which reverses bits and starts with ones."""
    value = zlib.crc32(page.translate(_REVERSED), 0xFFFF_FFFF) ^ 0xFFFF_FFFF
    return value.to_bytes(4, "big").translate(_REVERSED)


def page_size(header: bytes) -> int:
    """Returns the size of a page by its header; 0 if it is none, too much if a part is missing."""
    if not header.startswith(b"OggS"[: len(header)]):
        return 0
    if len(header) < _HEADER_BYTES:
        return _HEADER_BYTES + 1
    return _HEADER_BYTES + header[26] + sum(header[_HEADER_BYTES:][: header[26]])
