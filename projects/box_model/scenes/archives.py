"""Archives in packages, where games keep their sounds: zip, also as .pk3, and .rcc."""

import zipfile
from collections.abc import Collection, Iterator
from pathlib import Path

from projects.box_model.scenes.rcc import read_rcc
from sat_jax.errors import SatError
from sat_jax.runtime.files import explain_write_errors

INSIDE = "!/"
"""Stands between an archive and the name of a file in it."""


def unpack_archive(archive: Path, names: Collection[str]) -> None:
    """Writes some files of an archive into the folder ``ARCHIVE!`` beside it.

    Args:
      archive: a Qt resource file if its name ends in .rcc, else a zip file.
      names: of files in it; those that it lacks are passed over.

    Raises:
      SatError: it is damaged, or the folder can't be written.
    """
    folder = archive.with_name(archive.name + INSIDE.rstrip("/"))
    for name, content in _read(archive, names):
        target = folder / name
        if not target.resolve().is_relative_to(folder.resolve()):
            raise SatError(f"{archive} has a file {name!r}: that is no place for it")
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
    # zipfile's own word for a compression that it lacks is NotImplementedError.
    except (zipfile.BadZipFile, OSError, NotImplementedError) as error:
        raise SatError(f"{archive} is damaged ({error}): remove it, and run this again") from error
