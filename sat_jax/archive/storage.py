"""Files on this machine or in a bucket, by Beam's file systems.

A file is written under another name first, so that it is whole or not there.
"""

import contextlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from apache_beam.io.filesystem import BeamIOError, CompressionTypes
from apache_beam.io.filesystems import FileSystems

from sat_jax.errors import SatError


@contextlib.contextmanager
def storage_errors(path: str) -> Iterator[None]:
    """Turns errors of the storage into a `SatError` of one line that names `path`."""
    try:
        yield
    except (OSError, BeamIOError, ValueError) as error:  # ValueError: an unknown scheme
        details = getattr(error, "exception_details", None) or {}
        reason = next(iter(details.values()), error)
        text = getattr(reason, "strerror", None) or " ".join(str(reason).split())
        raise SatError(f"cannot use {path}: {text}") from error


def absolute(path: str) -> str:
    """Returns a local path from the root, since workers may run elsewhere; others unchanged."""
    return path if FileSystems.get_scheme(path) else os.path.abspath(path)


def find(pattern: str) -> list[str]:
    """Returns the files that match a pattern.

    Args:
      pattern: a name, with * inside a folder and ** for folders below it.

    Raises:
      SatError: there is none, or the storage can't be read.
    """
    with storage_errors(pattern):
        [result] = FileSystems.match([absolute(pattern)])
    if not result.metadata_list:
        raise SatError(f"{pattern}: no file matches: correct the pattern; ** spans folders")
    return [each.path for each in result.metadata_list]


def exists(path: str) -> bool:
    """Whether a file exists."""
    with storage_errors(path):
        return bool(FileSystems.exists(path))


def read_bytes(path: str) -> bytes:
    """Returns a file's content."""
    with open_file(path) as file:
        return file.read()


def write_bytes(path: str, content: bytes) -> None:
    """Writes a file."""
    with storage_errors(path):
        temporary = f"{path}.{secrets.token_hex(4)}.tmp"
        with FileSystems.create(temporary, compression_type=CompressionTypes.UNCOMPRESSED) as file:
            file.write(content)
        FileSystems.rename([temporary], [path])


@contextlib.contextmanager
def open_file(path: str) -> Iterator[IO[bytes]]:
    """Opens a file for reading, whatever its name ends with."""
    with (
        storage_errors(path),
        FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED) as file,
    ):
        yield file


def upload(local: Path, path: str) -> None:
    """Copies a local file to a path, whole or not at all."""
    with storage_errors(path):
        temporary = f"{path}.{secrets.token_hex(4)}.tmp"
        with (
            local.open("rb") as source,
            FileSystems.create(temporary, compression_type=CompressionTypes.UNCOMPRESSED) as file,
        ):
            shutil.copyfileobj(source, file, 1 << 20)
        FileSystems.rename([temporary], [path])


@contextlib.contextmanager
def local_copy(path: str) -> Iterator[str]:
    """Yields the name of a file on this machine with the content of `path`."""
    if FileSystems.get_scheme(path) is None:
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        with open_file(path) as file:
            local = save_stream(file, folder, path)
        yield local


def save_stream(file: IO[bytes], folder: str, name: str) -> str:
    """Saves the rest of a stream in a local folder; returns the file, which ends like `name`."""
    local = os.path.join(folder, "sound" + os.path.splitext(name)[1][:16])
    with open(local, "wb") as copy:
        shutil.copyfileobj(file, copy, 1 << 20)
    return local
