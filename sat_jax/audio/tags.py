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
    """Returns where the ID3v2 tags at `begin` end."""
    while tag := _ID3V2.match(read_at(file, begin, 10)):
        begin += 10 + _id3_size(tag[2]) + 10 * (tag[1][0] >> 4 & 1)
    return min(begin, end)


def is_padding(file: BinaryIO, begin: int, end: int) -> bool:
    """Whether all bytes of a stretch are zero."""
    while begin < end:
        block = read_at(file, begin, min(_BLOCK_BYTES, end - begin))
        if not block or block.count(0) < len(block):
            return False
        begin += len(block)
    return True


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
