"""Finds out from a file's header whether the file is complete.

libsndfile reads a truncated file to its end without an error.
"""

import dataclasses
import os
import re
import struct
from typing import BinaryIO

ADVICE = "get the whole file, or save what is left of it as a new WAV file"
"""What to do about a damaged file, for error messages."""

_BYTE_ORDER = {b"RIFF": "<", b"RF64": "<", b"RIFX": ">", b"FORM": ">"}
_SAMPLE_CHUNK_NAME = {b"WAVE": b"data", b"AIFF": b"SSND", b"AIFC": b"SSND"}
_MAX_CHUNKS = 1_000  # a damaged file may hold millions of empty chunks


@dataclasses.dataclass(frozen=True, kw_only=True)
class SampleChunk:
    """The part of a WAV, AIFF or AU file that holds the samples.

    Attributes:
      offset: position of the first sample, bytes.
      declared: number of bytes by the header; None if the writer did not fill it in, as when it
        wrote to a pipe or was stopped.
      available: number of bytes up to the end of the file.
    """

    offset: int
    declared: int | None
    available: int

    @property
    def is_truncated(self) -> bool:
        """Whether bytes are missing."""
        return self.declared is not None and self.declared > self.available


def find_sample_chunk(file: BinaryIO) -> SampleChunk | None:
    """Finds the samples of a WAV (RIFF, RIFX, RF64), AIFF or AU file; None for other files."""
    file.seek(0)
    header = file.read(12)
    file_size = os.fstat(file.fileno()).st_size
    order = _BYTE_ORDER.get(header[:4])
    chunk_name = _SAMPLE_CHUNK_NAME.get(header[8:])
    if order is not None and chunk_name is not None:
        return _find_chunk(file, header, order, chunk_name, file_size)
    if header.startswith(b".snd") and len(header) == 12:
        offset, size = struct.unpack(">2I", header[4:])
        declared = size if _is_size(size) else None
        return SampleChunk(offset=offset, declared=declared, available=file_size - offset)
    return None


def _find_chunk(
    file: BinaryIO, header: bytes, order: str, chunk_name: bytes, file_size: int
) -> SampleChunk | None:
    """Walks through the chunks after the file's header."""
    (outer_size,) = struct.unpack(f"{order}I", header[4:8])
    long_size = None
    for _ in range(_MAX_CHUNKS):
        chunk_header = file.read(8)
        if len(chunk_header) < 8:
            return None
        name, size = struct.unpack(f"{order}4sI", chunk_header)
        offset = file.tell()
        if name == chunk_name:
            is_open = size == 0 and name == b"data" and outer_size + 8 != file_size
            declared = long_size if is_open or not _is_size(size) else size
            return SampleChunk(offset=offset, declared=declared, available=file_size - offset)
        if name == b"ds64":
            long_size = _long_size(file.read(16))
        file.seek(offset + size + size % 2)
    return None


def _is_size(size: int) -> bool:
    """Whether a size is real: programs that do not know it write about 2 or 4 GiB."""
    return not (0x7FFF_F000 <= size <= 0x8000_0000 or size >= 0xFFFF_F000)


def _long_size(body: bytes) -> int | None:
    """Returns the size of the samples from the body of a ds64 chunk; 0 there means unknown."""
    return struct.unpack("<8xQ", body)[0] or None if len(body) == 16 else None


def mp3_counts_frames(file: BinaryIO) -> bool:
    """Whether the first frame of an MP3 file holds the number of frames (Xing header).

    Otherwise libsndfile estimates the length from the first frame's bit rate.
    """
    file.seek(0)
    tag = file.read(10)
    start = 0
    if tag[:3] == b"ID3" and len(tag) == 10:
        start = 10 + sum(byte << shift for byte, shift in zip(tag[6:], (21, 14, 7, 0), strict=True))
    file.seek(start)
    # The mark follows 4 bytes of header, possibly 2 of checksum, and up to 32 of side information.
    # Bit 0 of its 4 bytes of flags says whether the count follows.
    mark = re.search(rb"(?:Xing|Info)...(.)", file.read(4 + 2 + 32 + 8), re.DOTALL)
    return mark is not None and mark[1][0] & 1 == 1
