"""Finds the samples of a file, and compares the size in its header with what is there.

libsndfile believes a size that is too small, and reads a file that was cut without an error.
"""

import dataclasses
import struct
from typing import BinaryIO

from sat_jax.audio.containers import find_container
from sat_jax.audio.headers import MAX_SIZE, SAMPLE_CHUNKS, Header, read_header, walk_chunks
from sat_jax.audio.joined import JoinedView
from sat_jax.audio.metadata_tags import is_padding, skip_tags
from sat_jax.audio.view import View, read_at


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layout:
    """The samples of one sound in a file.

    Attributes:
      view: the sound as a file object, with the size that is there in its header; None if the
        file's own header is right. A `JoinedView` if the header does not tell where it ends.
      available: number of bytes of samples that are there.
      missing: says which samples are missing; "" if none are.
      next_begin: where another sound may begin in the file.
    """

    view: View | None
    available: int
    missing: str
    next_begin: int


def find_samples(file: BinaryIO, begin: int, end: int) -> Layout | None:
    """Finds the samples of the sound that begins at byte `begin`; None in an unknown format.

    Args:
      file: an unbuffered file.
      begin: where the sound begins.
      end: where the last sound of the file ends; only tags are behind it.
    """
    header = read_header(file, begin)
    if header is None or header.offset > end:
        return None
    stop, next_begin = _end_of_samples(file, header, end)
    available = stop - header.offset
    missing = (header.size or 0) - available
    # Some writers count the bytes of the header too, in one size or in both.
    header_size = header.offset - begin
    is_miscounted = missing in (header_size, header_size - 8, 44) or (
        missing < header_size and header.file_end in (end, end + 1)
    )
    loss = ""
    if missing > 0 and not is_miscounted:
        loss = f"truncated: {available} of {header.size} bytes of samples are there"
    elif next_begin < end and read_at(file, next_begin, 4) in SAMPLE_CHUNKS:
        loss = f"the samples from byte {next_begin} on, in a second chunk, are not read"
    view: View | None = None
    if available != header.size:
        kind = JoinedView if available > (header.size or 0) else View
        view = kind(file, header.offset, stop, with_size(file, begin, header, available))
    elif not header.is_obeyed:
        view = View(file, begin, min(end, stop + header.tail))
    elif begin > 0 or next_begin < end:
        view = View(file, begin, next_begin)
    return Layout(
        view=view,
        available=available,
        missing=loss,
        next_begin=next_begin,
    )


def _end_of_samples(file: BinaryIO, header: Header, end: int) -> tuple[int, int]:
    """Returns where the samples end, and where another sound may begin."""
    if header.size is None or header.offset + header.size >= end:
        return end, end
    # In a longer file, a size of 32 bits began again at 0.
    wraps = (end - header.offset - header.size) >> 32 if header.fields else 0
    for size in [header.size + (number << 32) for number in range(wraps + 1)]:
        stop = header.offset + size
        padded = rest = stop + (-size % header.chunks.alignment if header.chunks else 0)
        if header.chunks is not None:
            for chunk in walk_chunks(file, rest, header.chunks):
                if chunk.name in SAMPLE_CHUNKS:
                    return stop, rest
                if chunk.end > end + 1:
                    break
                rest = chunk.end
        for start in (stop, stop + 1, rest):  # A byte of padding may lie between.
            start = skip_tags(file, start, end)
            if start < end and find_container(lambda size: read_at(file, start, size)):  # noqa: B023
                return stop, start
        rest = skip_tags(file, rest, end)
        has_chunks = rest > padded
        if rest < end and (size or has_chunks) and is_padding(file, rest, end):
            return stop, rest  # A decoder of blocks would read on.
        if rest >= end or has_chunks:
            return stop, end
    return end, end  # The recorder did not write its last size: what follows is samples.


def with_size(file: BinaryIO, begin: int, header: Header, size: int) -> bytes:
    """Returns the bytes before the samples, with another size."""
    content = bytearray(read_at(file, begin, header.offset - begin))
    for position, form, extra in header.fields:
        value = size + extra
        if form[1] == "I" and value > MAX_SIZE:
            value = MAX_SIZE
            if content.startswith(b"RIFF"):
                content[:12] = b"RF64\xff\xff\xff\xffWAVEds64" + struct.pack(
                    "<I3QI", 28, size, size, 0, 0
                )
                position += 36
        struct.pack_into(form, content, position - begin, value)
    return bytes(content)
