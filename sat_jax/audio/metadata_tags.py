"""Finds tags and padding around the sound of a file: they are no sound, and hide no loss."""

import re
from typing import BinaryIO

from sat_jax.audio.view import read_at

_BLOCK_BYTES = 1 << 20
_ID3V2 = re.compile(rb"(?:ID3|3DI)[^\xff]{2}(.)([\0-\x7f]{4})", re.DOTALL)


def end_of_sound(file: BinaryIO, begin: int, end: int) -> int:
    """Returns where the tags at a file's end begin; `end` if there are none."""
    while (start := _start_of_tag(file, begin, end)) < end:
        end = start
    return end


def skip_tags(file: BinaryIO, begin: int, end: int) -> int:
    """Returns where the tags at `begin` end: before a file, or between two that were joined."""
    while size := _size_of_tag(read_at(file, begin, 32)):
        begin += size
    return min(begin, end)


def is_padding(file: BinaryIO, begin: int, end: int) -> bool:
    """Whether all bytes of a stretch are zero."""
    while begin < end:
        block = read_at(file, begin, min(_BLOCK_BYTES, end - begin))
        if not block or block.count(0) < len(block):
            return False
        begin += len(block)
    return True


def _size_of_tag(start: bytes) -> int:
    if start.startswith(b"TAG"):
        return 227 if start.startswith(b"TAG+") else 128
    if start.startswith(b"APETAGEX") and len(start) == 32:
        return 32 + int.from_bytes(start[12:16], "little")
    if start.startswith(b"ID3") and (id3 := _ID3V2.match(start)):
        return 10 + _id3_size(id3[2]) + 10 * (id3[1][0] >> 4 & 1)
    return 0


def _start_of_tag(file: BinaryIO, begin: int, end: int) -> int:
    tail = read_at(file, max(begin, end - 227), min(227, end - begin))
    size = 0
    if tail[-128:].startswith(b"TAG"):
        size = 227 if tail.startswith(b"TAG+") else 128  # ID3v1 and its extension
    elif (footer := tail[-32:]).startswith(b"APETAGEX"):
        size = int.from_bytes(footer[12:16], "little") + 32 * (footer[23] >> 7)
    elif tail.endswith(b"LYRICS200") and tail[-15:-9].isdigit():
        size = int(tail[-15:-9]) + 15
    elif tail[-10:].startswith(b"3DI") and (id3 := _ID3V2.match(tail[-10:])):
        size = _id3_size(id3[2]) + 20
    return end - size if 0 < size <= end - begin else end


def _id3_size(digits: bytes) -> int:
    """Returns a size that is written in four bytes of seven bits."""
    return sum(byte << shift for byte, shift in zip(digits, (21, 14, 7, 0), strict=True))
