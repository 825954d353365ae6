"""Where records, and the features of their examples, lie in TFRecord files.

With these places, records can be read in any order, and only the wanted part of a long record.

A record is its length (8 bytes), a checksum of the length (4), the data, and a checksum of the data
(4). The data is a ``tf.train.Example``: nested protobuf messages down to
Example.features.feature["name"].bytes_list.value.
"""

import struct
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

_HEADER = 12
_FOOTER = 4

_LENGTH_DELIMITED = 2
_FIRST_FIELD = bytes([1 << 3 | _LENGTH_DELIMITED])


class Span(NamedTuple):
    """Bytes `start` to `end` of a file."""

    start: int
    end: int


class BadRecord(ValueError):
    """A file is not a TFRecord file of examples; the message says where."""


def record_spans(file: BinaryIO, size: int) -> Iterator[Span]:
    """Finds the data of each record of a file.

    Args:
      file: seekable; the caller may move its position between two records.
      size: bytes in the file.

    Yields:
      One span per record, in order.

    Raises:
      BadRecord: a record does not end within the file.
    """
    at = 0
    while at < size:
        file.seek(at)
        header = file.read(_HEADER)
        start = at + _HEADER
        end = start + struct.unpack("<Q", header[:8])[0] if len(header) == _HEADER else size
        at = end + _FOOTER
        if at > size:
            raise BadRecord(f"it ends inside the record at byte {start - _HEADER}")
        yield Span(start, end)


def feature_spans(file: BinaryIO, example: Span) -> dict[str, Span]:
    """Finds the entry (name and value) of each feature of an example."""
    spans = {}
    for features in _fields(file, example):
        for entry in _fields(file, features):
            name, *_ = _fields(file, entry)
            spans[_read(file, name).decode()] = entry
    return spans


def bytes_span(file: BinaryIO, entry: Span) -> Span | None:
    """Finds the bytes value of a feature's entry; None if it is not a single bytes value."""
    _, *feature = _fields(file, entry)
    if len(feature) != 1:
        return None
    kind = list(_fields(file, feature[0], number=1))
    values = list(_fields(file, kind[0])) if len(kind) == 1 else []
    return values[0] if len(values) == 1 else None


def example_of(file: BinaryIO, entries: list[Span]) -> bytes:
    """Returns a serialized example of some entries; the others are not read."""
    body = b"".join(_first_field(_read(file, entry)) for entry in entries)
    return _first_field(body)


def _first_field(value: bytes) -> bytes:
    size, encoded = len(value), bytearray()
    while size > 0x7F:
        encoded.append(size & 0x7F | 0x80)
        size >>= 7
    encoded.append(size)
    return _FIRST_FIELD + bytes(encoded) + value


def _fields(file: BinaryIO, message: Span, *, number: int | None = None) -> Iterator[Span]:
    """Finds the values of a message's fields: all, or those with one number."""
    at = message.start
    while at < message.end:
        file.seek(at)
        tag, size = _varint(file), _varint(file)
        value = Span(file.tell(), file.tell() + size)
        at = value.end
        if tag & 7 != _LENGTH_DELIMITED or at > message.end:
            raise BadRecord(f"the data at byte {message.start} is not a tf.train.Example")
        if number in (None, tag >> 3):
            yield value


def _varint(file: BinaryIO) -> int:
    value = shift = 0
    while True:
        (byte,) = file.read(1) or b"\0"
        value |= (byte & 0x7F) << shift
        if not byte & 0x80:
            return value
        shift += 7


def _read(file: BinaryIO, span: Span) -> bytes:
    file.seek(span.start)
    return file.read(span.end - span.start)
