"""Finds where another file begins behind a sound whose header does not tell its end."""

import functools
import re
from typing import BinaryIO

from sat_jax.audio.view import View

_BLOCK_BYTES = 1 << 16
_HEADER_BYTES = 64
_CHUNK = rb"(?:fmt |ds64|fact|bext|LIST|JUNK|junk|PAD |FLLR|iXML)"
_ASF = rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9\x00\xaa\x00\x62\xce\x6c"
_WAVE64 = rb"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\x00\x00"
# A rare stretch of each header, its place, and the header: so long that no samples look like it.
_HEADERS = [
    (rare, place, re.compile(pattern, re.DOTALL))
    for rare, place, pattern in (
        (b"WAVE", 8, rb"(?:RIFF|RIFX|RF64|BW64)....WAVE" + _CHUNK),
        (b"AIF", 8, rb"FORM....AIF(?:F|C)(?:COMM|FVER|COMT|NAME|AUTH|ANNO)"),
        (b".snd\0", 0, rb"\.snd\0\0.{2}.{4}\0\0\0[\x01-\x1b]\0[\0-\x05]..\0\0\0[\x01-\x20]"),
        (b"fLaC", 0, rb"fLaC[\x00\x80]\x00\x00\x22"),
        (b"OggS\0\2", 0, rb"OggS\0\x02\0{8}.{4}\0{4}"),
        (b"ftyp", 4, rb"\0\0\0[\x08-\xff]ftyp[ -~]{4}"),
        (b"\x1a\x45\xdf\xa3", 0, rb"\x1a\x45\xdf\xa3.{1,36}\x42\x82[\x84\x88](?:webm|matroska)"),
        (b"ID3", 0, rb"ID3[\x03\x04]\0[\0\x40\x80\xc0][\0-\x7f]{4}[A-Z][A-Z0-9]{3}\0[\0-\x7f]{3}"),
        (b"caff\0\1", 0, rb"caff\0\x01\0\0desc\0{7}\x20"),
        (b"\x30\x26\xb2\x75", 0, _ASF),
        (b"riff\x2e\x91", 0, _WAVE64),
    )
]


def find_header(content: bytes, first: int = 0) -> int | None:
    """Returns where the header of a file begins in bytes, from index `first` on; None if none."""
    found = None
    for rare, place, pattern in _HEADERS:
        index = content.find(rare, first + place)
        while index >= 0 and not pattern.match(content, index - place):
            index = content.find(rare, index + 1)
        if index >= 0 and (found is None or index - place < found):
            found = index - place
    return found


class JoinedView(View):
    """A sound, which ends where the header of another one begins; see `View`."""

    def __init__(self, file: BinaryIO, begin: int, end: int, header: bytes = b"") -> None:
        """Starts at the beginning; see `View`."""
        super().__init__(file, begin, end, header)
        self._block, self._block_begin = b"", 0

    @property
    def end(self) -> int:
        """Where in the file this sound ends, as far as that was read."""
        return self._end

    def skip(self) -> None:
        """Reads up to the end, then returns to the beginning."""
        block = bytearray(_BLOCK_BYTES)
        while self.readinto(block):
            pass
        self.seek(0)

    def readinto(self, buffer) -> int:  # type: ignore[no-untyped-def]
        """Fills a buffer; see `View.readinto`."""
        wanted, first = len(buffer), self._position - self._block_begin
        if first < 0 or first + wanted > len(self._block):
            self._read_block()
            first = 0
        content = self._block[first : first + wanted]
        buffer[: len(content)] = content
        self._position += len(content)
        return len(content)

    def _read_block(self) -> None:
        """Reads ahead from the position, up to the next sound."""
        place, begin = self.place, self._position
        block = bytearray(_BLOCK_BYTES + _HEADER_BYTES)  # A header may lie across its end.
        content = bytes(block[: super().readinto(block)])
        self._position = self._block_begin = begin
        # At the very beginning is the sound's own header.
        if (start := find_header(content, 0 if begin else 1)) is not None:
            self._end = place + start
            content = content[:start]
        self._block = content[:_BLOCK_BYTES]


@functools.lru_cache(maxsize=1 << 16)
def find_next(name: str, begin: int, end: int, changed: int) -> int:
    """Returns where the next sound begins behind one; `end` if there is none.

    The result is kept, since training reads a file again and again.

    Args:
      name: the file's path.
      begin: where the sound begins.
      end: where the file's last sound ends.
      changed: time of the file's last change.
    """
    del changed
    with open(name, "rb", buffering=0) as file:
        view = JoinedView(file, begin, end)
        view.skip()
        return view.end
