"""Reads in a file's header where its samples are, and how many bytes of them it promises."""

import re
import struct
from collections.abc import Callable, Iterator
from typing import BinaryIO, NamedTuple

from sat_jax.audio.containers import container_of
from sat_jax.audio.view import read_at

SAMPLE_CHUNKS = (b"data", b"SSND", b"BODY")
"""Names of the chunks that hold samples."""

MAX_SIZE = 0xFFFF_FFFF
"""The largest size in 32 bits."""

_MAX_CHUNKS = 1_000  # A damaged file may hold millions of empty chunks.


class _Field(NamedTuple):
    """A place where a header has the size of the samples, plus `extra` bytes."""

    position: int
    form: str
    extra: int = 0


class _ChunkForm(NamedTuple):
    """How a format writes chunks: their header, the position of the first, their alignment."""

    header: str
    first: int
    alignment: int
    size_counts_header: bool = False


class Header(NamedTuple):
    """What a header says.

    Attributes:
      offset: position of the first sample.
      size: number of bytes of samples; None if the writer left that open.
      fields: where libsndfile finds the size.
      chunks: how chunks are written; None if there are none.
      file_end: end of the file by the header; None if it does not say.
      tail: number of bytes behind the samples that libsndfile needs.
    """

    offset: int
    size: int | None
    fields: tuple[_Field, ...] = ()
    chunks: _ChunkForm | None = None
    file_end: int | None = None
    tail: int = 0

    @property
    def is_obeyed(self) -> bool:
        """Whether libsndfile stops where the header says; else it stops where the file ends."""
        return self.chunks is not None and not self.chunks.size_counts_header


class _Chunk(NamedTuple):
    """Name, position behind the chunk's header, size of what follows, position of the next."""

    name: bytes
    body: int
    size: int
    end: int


_CHUNK_FORMS = {
    **dict.fromkeys((b"RIFF", b"RF64", b"BW64"), _ChunkForm("<4sI", 12, 2)),
    b"RIFX": _ChunkForm(">4sI", 12, 2),
    b"FORM": _ChunkForm(">4sI", 12, 2),
    b"caff\0\1": _ChunkForm(">4sQ", 8, 1),
    b"riff\x2e\x91\xcf\x11": _ChunkForm("<16sQ", 40, 8, size_counts_header=True),  # Wave64
}


def read_header(file: BinaryIO, begin: int) -> Header | None:
    """Reads the header of the sound that begins at a byte; None in an unknown format."""
    start = read_at(file, begin, 1024)
    for signature, form in _CHUNK_FORMS.items():
        if start.startswith(signature):
            return _read_chunks(file, begin, start, form)
    for signature, read in _READERS.items():
        if start.startswith(signature):
            try:
                header = read(start)
            except (struct.error, ValueError, IndexError):
                header = None  # libsndfile says what is wrong.
            if header is None:
                return None
            fields = tuple(field._replace(position=begin + field[0]) for field in header.fields)
            return header._replace(offset=begin + header.offset, fields=fields)
    return None


def walk_chunks(file: BinaryIO, position: int, form: _ChunkForm) -> Iterator[_Chunk]:
    """Yields chunks up to something else."""
    header = struct.Struct(form.header)
    for _ in range(_MAX_CHUNKS):
        content = read_at(file, position, 24)
        if len(content) < header.size or container_of(content):
            return
        name, size = header.unpack_from(content)
        if not all(32 <= byte < 127 for byte in name[:4]):
            return
        body = position + header.size
        size = max(0, size - header.size) if form.size_counts_header else size
        position = body + size + -size % form.alignment
        yield _Chunk(name[:4], body, size, position)


def known_size(size: int) -> int | None:
    """Returns a size; None for those that stand for an unknown size."""
    is_placeholder = 0x7FFF_F000 <= size <= 0x8000_0000 or 0xFFFF_F000 <= size <= MAX_SIZE
    return None if is_placeholder or size >= 1 << 62 else size


def _read_chunks(file: BinaryIO, begin: int, start: bytes, form: _ChunkForm) -> Header | None:
    width = struct.calcsize(form.header[0] + form.header[-1])
    fields: tuple[_Field, ...] = ()
    long_size = None
    for chunk in walk_chunks(file, begin + form.first, form):
        if chunk.name == b"ds64":
            long_size = known_size(int.from_bytes(read_at(file, chunk.body + 8, 8), "little"))
            fields = (_Field(chunk.body + 8, "<Q"),)
        elif chunk.name in SAMPLE_CHUNKS:
            lead = 8 if chunk.name == b"SSND" else 0  # An offset and a block size come first.
            extra = struct.calcsize(form.header) if form.size_counts_header else lead
            field = _Field(chunk.body - width, form.header[0] + form.header[-1], extra)
            size = known_size(chunk.size)
            if size is not None:
                size = max(0, size - lead)
            outer = int.from_bytes(start[4:8], "big" if form.header[0] == ">" else "little")
            return Header(
                offset=chunk.body + lead,
                size=size or long_size or size,
                fields=(*fields, field),
                chunks=form,
                file_end=begin + 8 + outer if width == 4 else None,
            )
    return None


def _read_au(start: bytes) -> Header:
    order = "<" if start.startswith(b"dns.") else ">"
    offset, size = struct.unpack_from(order + "2I", start, 4)
    return Header(offset, known_size(size), (_Field(8, order + "I"),))


def _read_wve(start: bytes) -> Header:
    return Header(32, struct.unpack_from(">I", start, 18)[0], (_Field(18, ">I"),))


def _read_avr(start: bytes) -> Header:
    is_stereo, bits, frames = struct.unpack_from(">2H10xI", start, 12)
    return Header(128, frames * bits // 8 * (2 if is_stereo else 1))


def _read_mpc2000(start: bytes) -> Header:
    is_stereo, frames = struct.unpack_from("<?8xI", start, 21)
    return Header(42, frames * (4 if is_stereo else 2))


def _read_sds(start: bytes) -> Header:
    frames = sum(byte << shift for byte, shift in zip(start[10:13], (0, 7, 14), strict=True))
    samples_per_packet = 120 // -(-start[6] // 7)
    return Header(21, -(-frames // samples_per_packet) * 127)


def _read_nist(start: bytes) -> Header:
    found = dict(re.findall(rb"(\w+) -\w+ (\d+)", start))
    names = (b"sample_count", b"channel_count", b"sample_n_bytes")
    count, channels, width = (int(found.get(name, 0)) for name in names)
    return Header(int(start[8:16]), count * channels * width or None)


def _read_voc(start: bytes) -> Header | None:
    position = int.from_bytes(start[20:22], "little")
    while 0 < (kind := start[position]) < 10:
        size = int.from_bytes(start[position + 1 : position + 4], "little")
        if own := {1: 2, 9: 12}.get(kind):
            return Header(position + 4 + own, size - own, tail=1)
        position += 4 + size
    return None


def _read_mat4(start: bytes) -> Header:
    """Reads the second matrix of a file: the first holds the sample rate."""
    order = ">" if start[2] else "<"
    position = 20 + struct.unpack_from(order + "I", start, 16)[0] + 8
    kind, rows, columns, _, name = struct.unpack_from(order + "5I", start, position)
    width = (8, 4, 4, 2, 2, 1)[kind // 10 % 10]
    return Header(position + 20 + name, rows * columns * width)


_READERS: dict[bytes, Callable[[bytes], Header | None]] = {
    b".snd": _read_au,
    b"dns.": _read_au,
    b"NIST_1A": _read_nist,
    b"Creative Voice File\x1a": _read_voc,
    b"2BIT": _read_avr,
    b"ALawSoundFile**": _read_wve,
    b"\x01\x04": _read_mpc2000,
    b"\xf0\x7e\0\1": _read_sds,
    **dict.fromkeys((b"\0\0\0\0\1\0\0\0\1\0\0\0", b"\0\0\x03\xe8\0\0\0\1\0\0\0\1"), _read_mat4),
}
