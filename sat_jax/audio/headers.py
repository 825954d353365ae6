"""What a file's own bytes say about whether all of it is there.

libsndfile reads what it finds and does not tell that a file was cut short; these functions do.
"""

import dataclasses
import os
import re
import struct
from typing import BinaryIO

WAY_OUT = "get the whole file, or save what is left of it as a new WAV file"
"""What the user of a damaged file can do."""

_BYTE_ORDER = {b"RIFF": "<", b"RF64": "<", b"RIFX": ">", b"FORM": ">"}
_SAMPLE_CHUNK = {b"WAVE": b"data", b"AIFF": b"SSND", b"AIFC": b"SSND"}
_MAX_CHUNKS = 1_000  # a damaged file could hold empty chunks by the million


@dataclasses.dataclass(frozen=True, kw_only=True)
class SampleChunk:
    """The part of a WAV, AIFF or AU file that holds the samples.

    Attributes:
      offset: where the samples begin, bytes.
      declared: how many bytes there should be, or None if the writer could not know, as when
        it wrote to a pipe or was stopped before it came back to fill in the size.
      available: how many bytes there are up to the end of the file.
    """

    offset: int
    declared: int | None
    available: int

    @property
    def is_cut(self) -> bool:
        """Whether fewer bytes are there than were written."""
        return self.declared is not None and self.declared > self.available


def find_samples(file: BinaryIO) -> SampleChunk | None:
    """Looks through a WAV (RIFF, RIFX, RF64), AIFF or AU file; None for all else."""
    file.seek(0)
    header = file.read(12)
    file_size = os.fstat(file.fileno()).st_size
    order = _BYTE_ORDER.get(header[:4])
    wanted = _SAMPLE_CHUNK.get(header[8:])
    if order is not None and wanted is not None:
        return _find_chunk(file, header, order, wanted, file_size)
    if header.startswith(b".snd") and len(header) == 12:
        offset, size = struct.unpack(">2I", header[4:])
        declared = size if _is_size(size) else None
        return SampleChunk(offset=offset, declared=declared, available=file_size - offset)
    return None


def _find_chunk(
    file: BinaryIO, header: bytes, order: str, wanted: bytes, file_size: int
) -> SampleChunk | None:
    """Walks from chunk to chunk, beginning behind the header of the outermost one."""
    (outer_size,) = struct.unpack(f"{order}I", header[4:8])
    long_size = None
    for _ in range(_MAX_CHUNKS):
        chunk_header = file.read(8)
        if len(chunk_header) < 8:
            return None
        name, size = struct.unpack(f"{order}4sI", chunk_header)
        offset = file.tell()
        if name == wanted:
            is_open = size == 0 and name == b"data" and outer_size + 8 != file_size
            declared = long_size if is_open or not _is_size(size) else size
            return SampleChunk(offset=offset, declared=declared, available=file_size - offset)
        if name == b"ds64":
            long_size = _long_size(file.read(16))
        file.seek(offset + size + size % 2)
    return None


def _is_size(size: int) -> bool:
    """Whether a size is meant: programs that cannot know it write about 2 or 4 GiB."""
    return not (0x7FFF_F000 <= size <= 0x8000_0000 or size >= 0xFFFF_F000)


def _long_size(body: bytes) -> int | None:
    """The size of the samples in the body of a ds64 chunk; 0 stands for unknown."""
    return struct.unpack("<8xQ", body)[0] or None if len(body) == 16 else None


def mp3_counts_frames(file: BinaryIO) -> bool:
    """Whether the first frame of an MP3 file holds the number of frames (a Xing header).

    Without it libsndfile estimates the length from the bit rate of the first frame.
    """
    file.seek(0)
    tag = file.read(10)
    start = 0
    if tag[:3] == b"ID3" and len(tag) == 10:
        start = 10 + sum(byte << shift for byte, shift in zip(tag[6:], (21, 14, 7, 0), strict=True))
    file.seek(start)
    # The mark follows 4 bytes of header, perhaps 2 of checksum, and at most 32 of side
    # information; the last of its 4 bytes of flags tells whether the count is there.
    mark = re.search(rb"(?:Xing|Info)...(.)", file.read(4 + 2 + 32 + 8), re.DOTALL)
    return mark is not None and mark[1][0] & 1 == 1
