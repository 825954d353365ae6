"""Reads MP3 files to their end, and finds out what is missing."""

import re
from typing import BinaryIO, NamedTuple

from sat_jax.audio.joined import JoinedView
from sat_jax.audio.view import read_at

_PRETENDED_BYTES = 1 << 40
_ID3V1_BYTES = 128
_MP3_HEADER_BYTES = 4


class Xing(NamedTuple):
    """The Xing header in the first frame of a stream.

    Attributes:
      frames: number of frames.
      end: where in the file the stream ends; None if the header has no size.
      mean_bytes: mean size of a frame.
    """

    frames: int
    end: int | None
    mean_bytes: float


def read_xing(file: BinaryIO, begin: int) -> Xing | None:
    """Returns what a Xing header says of a stream that begins at a byte; None if it counts none."""
    # The mark follows 4 bytes of header, possibly 2 of checksum, and up to 32 of side information.
    # Bit 0 of its 4 bytes of flags says whether the count follows, bit 1 whether the size does.
    start = read_at(file, begin, 4 + 2 + 32 + 16)
    mark = re.match(rb"\xff[\xe2-\xff].{2,36}(?:Xing|Info)...(.)(.{4})(.{4})", start, re.DOTALL)
    if mark is None or not mark[1][0] & 1:
        return None
    size = int.from_bytes(mark[3]) if mark[1][0] & 2 else 0
    frames = int.from_bytes(mark[2])
    return Xing(frames, begin + size if size else None, size / max(1, frames))


class Mp3View(JoinedView):
    """An MP3 stream that pretends to be very long, and follows how it is read, frame by frame.

    Without a Xing header, libsndfile estimates the length from the number of bytes and the first
    frame, and would stop there. The stream ends where a sound of another format begins.

    Attributes:
      skipped: number of bytes that are part of no frame: the decoder reads these one by one.
      skipped_at: where in the file the last stretch of them begins.
      is_torn: whether the end came within a frame.
    """

    def __init__(self, file: BinaryIO, begin: int, end: int) -> None:
        """Starts at the beginning."""
        super().__init__(file, begin, end)
        self._skipped_end = -1
        self.forget()

    def forget(self) -> None:
        """Forgets what was read."""
        self.skipped = self.skipped_at = 0
        self.is_torn = False

    @property
    def skips_end(self) -> bool:
        """Whether the skipped bytes are all at the end."""
        return self.skipped_at + self.skipped == self._end

    def readinto(self, buffer) -> int:  # type: ignore[no-untyped-def]
        """Fills a buffer; see `View.readinto`."""
        place, wanted = self.place, len(buffer)
        if self._position >= _PRETENDED_BYTES - _ID3V1_BYTES:
            memoryview(buffer)[:] = bytes(wanted)  # libsndfile looks for a tag at the end.
            return wanted
        got = super().readinto(buffer)
        if wanted == 1 and got:
            if place != self._skipped_end:
                self.skipped_at = place
            self.skipped += 1
            self._skipped_end = place + 1
        self.is_torn |= wanted > _MP3_HEADER_BYTES and got < wanted
        return got

    def _length(self) -> int:
        return _PRETENDED_BYTES
