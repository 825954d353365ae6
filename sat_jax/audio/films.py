"""Splits joined MP4 and ASF (WMA) files: ffmpeg would read only the first one."""

from collections.abc import Iterator
from typing import BinaryIO

from sat_jax.audio.metadata_tags import skip_tags
from sat_jax.audio.view import read_at

_ASF_HEADER = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_HEADER_BYTES = 24
_MAX_BOXES = 1_000_000  # A fragmented file has two a second.


def find_films(file: BinaryIO, begin: int, end: int) -> list[tuple[int, int]]:
    """Finds where each of the joined files begins.

    Args:
      file: an unbuffered file.
      begin: where the first sound begins, perhaps behind tags.
      end: where the last sound ends.

    Returns:
      The first byte of each, and one past its last; in other formats one file behind its tags.
    """
    begin = skip_tags(file, begin, end)  # Places in an MP4 count from its own beginning.
    starts, is_complete = [begin], False
    for kind, position, _ in _walk(file, begin, end):
        if is_complete and kind in (b"ftyp", _ASF_HEADER):
            starts.append(position)
            is_complete = False
        is_complete |= kind in (b"moov", _ASF_HEADER)
    return list(zip(starts, [*starts[1:], end], strict=True))


def end_by_asf(file: BinaryIO, begin: int, end: int) -> int:
    """Returns the end of an ASF file by the sizes in it; 0 for other formats."""
    if read_at(file, begin, 16) != _ASF_HEADER:
        return 0
    return max((stop for _, _, stop in _walk(file, begin, end)), default=0)


def _walk(file: BinaryIO, begin: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yields name, begin and end of each outermost box, up to something else."""
    position = begin
    is_asf = read_at(file, position, 16) == _ASF_HEADER
    for _ in range(_MAX_BOXES):
        if position >= end:
            return
        header = read_at(file, position, _HEADER_BYTES)
        if is_asf:
            kind, size = header[:16], int.from_bytes(header[16:], "little")
        else:
            kind, size = header[4:8], int.from_bytes(header[:4])
            if size == 1:
                size = int.from_bytes(header[8:16])
        if size < 8 or not (is_asf or kind.isalnum()):
            return
        yield kind, position, position + size
        position += size
