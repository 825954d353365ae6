"""Finds the end of MP4, ASF (WMA), RIFF (AVI) and FLV files by the sizes in them.

ffmpeg reads only the first of joined files, and does not report some that were cut.
"""

from typing import BinaryIO

from sat_jax.audio.containers import container_of, find_container
from sat_jax.audio.headers import known_size
from sat_jax.audio.metadata_tags import skip_tags
from sat_jax.audio.view import read_at

_HEADER_BYTES = 24
_MAX_BOXES = 1_000_000  # A fragmented MP4 has two a second, an FLV a hundred.


def find_end(file: BinaryIO, begin: int, end: int) -> int:
    """Finds the end of the file that begins at a byte.

    Args:
      file: an unbuffered file.
      begin: where it begins.
      end: where the last of joined files ends.

    Returns:
      Where the next of joined files begins; `end` if there is none, and in other formats. It is
      beyond `end` if the file was cut.
    """
    size_of = _SIZES.get(container_of(read_at(file, begin, _HEADER_BYTES)) or "")
    if size_of is None:
        return end
    position, size, has_index = begin, 0, False
    for _ in range(_MAX_BOXES):
        header = read_at(file, position, min(_HEADER_BYTES, end - position))
        kind = header[4:8]
        size = 0 if kind == b"ftyp" and has_index else size_of(header, position == begin)
        if not size or position + size > end:
            break
        has_index |= kind == b"moov"
        position += size
    start = skip_tags(file, position, end)
    if not size and begin < start < end and find_container(lambda size: read_at(file, start, size)):
        return start
    return max(end, position + size)


def _mp4_size(header: bytes, is_first: bool) -> int:
    """Returns the size of a box; 0 if it is none, or if another file begins."""
    del is_first
    size = int.from_bytes(header[:4])
    if size == 1:
        size = int.from_bytes(header[8:16])
    return size if size >= 8 and header[4:8].isalnum() else 0


def _asf_size(header: bytes, is_first: bool) -> int:
    is_next = not is_first and container_of(header)
    return 0 if is_next else int.from_bytes(header[16:], "little")


def _riff_size(header: bytes, is_first: bool) -> int:
    size = known_size(int.from_bytes(header[4:8], "little"))
    is_own = header.startswith(b"RIFF") and (is_first or header[8:12] == b"AVIX")
    return 8 + size if size and is_own else 0


def _flv_size(header: bytes, is_first: bool) -> int:
    if is_first:
        return 13
    return 15 + int.from_bytes(header[1:4]) if header[:1] in (b"\x08", b"\x09", b"\x12") else 0


_SIZES = {
    "MP4": _mp4_size,
    "ASF": _asf_size,
    "AVI": _riff_size,
    "WAV": _riff_size,
    "FLV": _flv_size,
}
