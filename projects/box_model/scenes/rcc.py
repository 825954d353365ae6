"""Files in a Qt resource file (.rcc), which is how some packages keep their sounds.

The layout is that of Qt's own `rcc --binary`: a tree of nodes, their names in UTF-16, and the data,
all numbers big-endian. Qt's program would be another 90 MB to download.
"""

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from sat_jax.errors import SatError

_COMPRESSED, _FOLDER, _ZSTD = 1, 2, 4


class _Header(NamedTuple):
    """Where the parts of the file begin, bytes from its start."""

    version: int
    tree: int
    data: int
    names: int


def read_rcc(path: Path) -> Iterator[tuple[str, bytes]]:
    """Reads all files of a resource file.

    Args:
      path: the resource file.

    Yields:
      The name of each file, with "/" between its folders, and its content.

    Raises:
      SatError: it can't be read, is no resource file or damaged, or is compressed by zstd.
    """
    try:
        content = path.read_bytes()
        if content[:4] != b"qres":
            raise SatError("no Qt resource file: remove it, and run this again")
        header = _Header(*struct.unpack_from(">4I", content, 4))
        yield from _walk(content, header, 0, "")
    except SatError as error:
        raise SatError(f"{path}: {error}") from error
    except OSError as error:
        raise SatError(f"cannot read {path}: {error.strerror or error}") from error
    except (struct.error, zlib.error, UnicodeDecodeError, RecursionError) as error:
        raise SatError(f"{path} is damaged ({error}): remove it, and run this again") from error


def _walk(content: bytes, header: _Header, node: int, folder: str) -> Iterator[tuple[str, bytes]]:
    """All files below a node of the tree; the root has no name."""
    size = 14 if header.version < 2 else 22  # Later versions add the time of the last change.
    name_at, flags = struct.unpack_from(">IH", content, header.tree + node * size)
    name = f"{folder}/{_name(content, header.names + name_at)}" if node else ""
    first, second = struct.unpack_from(">II", content, header.tree + node * size + 6)
    if flags & _FOLDER:
        for child in range(second, second + first):
            yield from _walk(content, header, child, name)
    else:
        yield name.lstrip("/"), _data(content, header.data + second, flags)


def _name(content: bytes, at: int) -> str:
    (length,) = struct.unpack_from(">H", content, at)
    return content[at + 6 : at + 6 + 2 * length].decode("utf-16-be")


def _data(content: bytes, at: int, flags: int) -> bytes:
    (size,) = struct.unpack_from(">I", content, at)
    data = content[at + 4 : at + 4 + size]
    if len(data) < size:
        raise struct.error(f"{size} bytes of data at {at}, and the file ends")
    if flags & _ZSTD:
        raise SatError("a file in it is compressed by zstd: only zlib can be read")
    # Qt writes the size that comes out in front of what zlib made.
    return zlib.decompress(data[4:]) if flags & _COMPRESSED else data
