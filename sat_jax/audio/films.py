"""Finds the end of MP4, ASF (WMA), RIFF (AVI), FLV, Matroska and Ogg files by the sizes in them.

ffmpeg reads only the first of joined files, and does not report some that were cut.
"""

import io
from collections.abc import Iterable, Iterator
from typing import BinaryIO

from sat_jax.audio.containers import container_of, find_container
from sat_jax.audio.headers import known_size
from sat_jax.audio.layout import find_samples
from sat_jax.audio.metadata_tags import is_padding, skip_tags
from sat_jax.audio.ogg import find_stream, page_size
from sat_jax.audio.view import read_at

_HEADER_BYTES = 24
_LONGEST_HEADER = 27 + 255  # Of an Ogg page.
_MAX_BOXES = 1_000_000  # A fragmented MP4 has two a second, an FLV a hundred.
_TO_END = 1 << 62  # The size of a box that ends with the file.


def find_end(file: BinaryIO, begin: int, end: int) -> int:
    """Finds the end of the file that begins at a byte.

    Args:
      file: an unbuffered file.
      begin: where it begins.
      end: where the last of joined files ends.

    Returns:
      Where the next of joined files begins, or the zeros behind it; `end` if there are none, and in
      other formats. It is beyond `end` if the file was cut.
    """
    container = container_of(read_at(file, begin, _HEADER_BYTES)) or ""
    if container == "Ogg":
        stop, damage = find_stream(file, begin, end)
        return end if damage else stop
    size_of = _SIZES.get(container)
    if size_of is None:
        return end
    position, size, film = begin, 0, _Film()
    for _ in range(_MAX_BOXES):
        header = read_at(file, position, min(_HEADER_BYTES, end - position))
        if container == "MP4" and (following := film.find_next(header, position)):
            return following
        is_other = position > begin and container_of(header) not in (None, container)
        size = 0 if is_other else size_of(header, position == begin)
        if size == _TO_END:
            return end
        if not size or position + size > end:
            break
        position += size
    start = skip_tags(file, position, end)
    is_next = not size and begin < start < end
    if is_next and find_container(lambda size: read_at(file, start, size)):
        return start
    if is_next and is_padding(file, start, end):
        return position
    return max(end, position + size)


def loss_by_header(file: BinaryIO, begin: int, end: int, promised: int) -> str:
    """Says what is missing of a sound by its header; "" if that does not tell.

    Args:
      file: an unbuffered file.
      begin: where the sound begins.
      end: where it ends.
      promised: where it ends by the sizes in it; see `find_end`.
    """
    if read_at(file, begin, 4) == b"OggS":
        return find_stream(file, begin, end)[1]
    if layout := find_samples(file, begin, end):
        return layout.missing
    return f"truncated: {end} of {promised} bytes are there" if promised > end + 1 else ""


class FilmEnd:
    """Yields the pieces of a file from a pipe, and finds out by its sizes whether it was cut.

    Attributes:
      loss: names the missing part after the last piece; "" for a whole file.
    """

    def __init__(self, pieces: Iterable[bytes], container: str) -> None:
        """Starts at the beginning of the file."""
        self.loss = ""
        self._pieces = pieces
        self._size_of = _SIZES.get(container)
        self._slack = 0 if container == "Ogg" else 1  # A page is lost with its last byte.
        self._data = b""
        self._total = self._place = 0  # Positions behind what came, and of the next box.

    def __iter__(self) -> Iterator[bytes]:
        """Yields the pieces unchanged."""
        for piece in self._pieces:
            yield piece
            if self._size_of is not None:
                self._data += piece
                self._total += len(piece)
                self._go_on(_LONGEST_HEADER)
        self._go_on(1)
        if self._place > self._total + self._slack and self._place < _TO_END:
            self.loss = f"truncated: {self._total} of {self._place} bytes are there"

    def _go_on(self, header_bytes: int) -> None:
        """Steps over the boxes whose headers have come."""
        while self._size_of and self._total >= self._place + header_bytes:
            header = self._data[self._place - self._total :][:_LONGEST_HEADER]
            is_tag = skip_tags(io.BytesIO(header), 0, len(header)) > 0
            size = 0 if is_tag else self._size_of(header, self._place == 0)
            if not size:
                self._size_of = None  # Another file may follow, too.
            self._place += size
        self._data = self._data[max(0, len(self._data) + self._place - self._total) :]


class _Film:
    """Finds the next of joined MP4 files: each has one index, and a QuickTime file no `ftyp`."""

    def __init__(self) -> None:
        self._has_index = self._has_samples = False
        self._next = 0  # Where another may begin, if a second index follows.

    def find_next(self, header: bytes, position: int) -> int:
        """Returns where the next file begins, if a box shows that; else 0."""
        kind = header[4:8]
        if kind == b"ftyp" and self._has_index:
            return position
        if self._has_index and self._has_samples:
            if not self._next and container_of(header):
                self._next = position
            if kind == b"moov":
                return self._next
        if kind == b"moof":  # A fragment of the same file, with samples of its own.
            self._has_samples, self._next = False, 0
        self._has_index |= kind == b"moov"
        self._has_samples |= kind == b"mdat"
        return 0


def _mp4_size(header: bytes, is_first: bool) -> int:
    """Returns the size of a box; 0 if it is none."""
    del is_first
    size = int.from_bytes(header[:4])
    if size == 1:
        size = int.from_bytes(header[8:16])
    is_box = header[4:8].isalnum() and (size == 0 or size >= 8)
    return (size or _TO_END) if is_box else 0


_ASF_HEADER = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_ASF_DATA = bytes.fromhex("3626b2758e66cf11a6d900aa0062ce6c")
_ASF_INDEXES = (
    bytes.fromhex("90080033b1e5cf1189f400a0c90349cb"),
    bytes.fromhex("d329e2d6da35d111903400a0c90349be"),
    bytes.fromhex("f803b1fead12644c840f2a1d2f7ad48c"),
    bytes.fromhex("d03fb73c4a0c0348953dedf7b6228f0c"),
)
_ASF_DATA_HEADER_BYTES = 50


def _asf_size(header: bytes, is_first: bool) -> int:
    kind = header[:16]
    if kind not in (_ASF_HEADER if is_first else _ASF_DATA, *_ASF_INDEXES):
        return 0
    size = known_size(int.from_bytes(header[16:24], "little")) or 0
    # A live writer leaves the size open, or gives that of an empty object.
    return _TO_END if kind == _ASF_DATA and size <= _ASF_DATA_HEADER_BYTES else size


def _riff_size(header: bytes, is_first: bool) -> int:
    size = known_size(int.from_bytes(header[4:8], "little"))
    is_own = header.startswith(b"RIFF") and (is_first or header[8:12] == b"AVIX")
    return 8 + size if size and is_own else 0


def _flv_size(header: bytes, is_first: bool) -> int:
    if is_first:
        return 13
    return 15 + int.from_bytes(header[1:4]) if header[:1] in (b"\x08", b"\x09", b"\x12") else 0


def _matroska_size(header: bytes, is_first: bool) -> int:
    if not header.startswith(b"\x1a\x45\xdf\xa3" if is_first else b"\x18\x53\x80\x67"):
        return 0
    width = 9 - header[4].bit_length()  # The highest bit that is set tells the width.
    unknown = (1 << 7 * width) - 1
    size = int.from_bytes(header[4 : 4 + width]) & unknown
    return _TO_END if size == unknown else 4 + width + size


def _ogg_size(header: bytes, is_first: bool) -> int:
    del is_first
    return page_size(header)


_SIZES = {
    "Ogg": _ogg_size,
    "MP4": _mp4_size,
    "ASF": _asf_size,
    "AVI": _riff_size,
    "WAV": _riff_size,
    "FLV": _flv_size,
    "Matroska": _matroska_size,
}
