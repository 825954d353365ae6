"""Unpacks archives of games: zip, also as .pk3, and Qt resource files (.rcc).

The layout of .rcc is that of Qt's `rcc --binary`: a tree of nodes, their names in UTF-16, and the
data, all numbers big-endian. Qt's own program would be another 90 MB to download.
"""

import struct
import zipfile
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

from sat_jax.errors import SatError
from sat_jax.runtime.files import explain_write_errors

INSIDE = "!/"
"""Separates an archive and the name of a file in it."""

_COMPRESSED, _FOLDER, _ZSTD = 1, 2, 4


def unpack_archive(archive: Path, names: Collection[str]) -> None:
    """Unpacks files of an archive into the folder ``ARCHIVE!`` beside it.

    Args:
      archive: a Qt resource file if its name ends in .rcc, else a zip file.
      names: the files; missing ones are skipped.

    Raises:
      SatError: the archive is damaged, or the folder can't be written.
    """
    folder = archive.with_name(archive.name + INSIDE.rstrip("/"))
    for name, content in _read(archive, names):
        target = folder / name
        if not target.resolve().is_relative_to(folder.resolve()):
            raise SatError(f"{archive} has a file outside its folder: {name!r}")
        with explain_write_errors(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)


def _read(archive: Path, names: Collection[str]) -> Iterator[tuple[str, bytes]]:
    if archive.suffix == ".rcc":
        yield from ((name, content) for name, content in read_rcc(archive) if name in names)
        return
    try:
        with zipfile.ZipFile(archive) as opened:
            for name in sorted(set(names) & set(opened.namelist())):
                yield name, opened.read(name)
    # NotImplementedError means an unknown compression.
    except (zipfile.BadZipFile, OSError, NotImplementedError) as error:
        raise SatError(f"{archive} is damaged ({error}): remove it and run this again") from error


class _Header(NamedTuple):
    """Byte offsets of the parts of the file."""

    version: int
    tree: int
    data: int
    names: int


def read_rcc(path: Path) -> Iterator[tuple[str, bytes]]:
    """Reads all files of a Qt resource file.

    Args:
      path: the resource file.

    Yields:
      The name of each file, with "/" between its folders, and its content.

    Raises:
      SatError: it can't be read, is damaged or of another format, or is compressed by zstd.
    """
    try:
        content = path.read_bytes()
        if content[:4] != b"qres":
            raise SatError("not a Qt resource file: remove it and run this again")
        header = _Header(*struct.unpack_from(">4I", content, 4))
        yield from _walk(content, header, 0, "")
    except SatError as error:
        raise SatError(f"{path}: {error}") from error
    except OSError as error:
        raise SatError(f"cannot read {path}: {error.strerror or error}") from error
    except (struct.error, zlib.error, UnicodeDecodeError, RecursionError) as error:
        raise SatError(f"{path} is damaged ({error}): remove it and run this again") from error


def _walk(content: bytes, header: _Header, node: int, folder: str) -> Iterator[tuple[str, bytes]]:
    """Yields all files below a node of the tree; the root has no name."""
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
        raise struct.error(f"the file ends inside {size} bytes of data at {at}")
    if flags & _ZSTD:
        raise SatError("a file in it is compressed by zstd; only zlib is supported")
    # Qt writes the uncompressed size in front of zlib's data.
    return zlib.decompress(data[4:]) if flags & _COMPRESSED else data
