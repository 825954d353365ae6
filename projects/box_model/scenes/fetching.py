"""Unpacks the wanted files of a package or repository from its tar archive, once."""

import collections
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Collection
from pathlib import Path, PurePosixPath

from projects.box_model.scenes.archives import INSIDE, unpack_archive
from sat_jax.errors import SatError
from sat_jax.runtime.files import explain_write_errors

_REQUESTED = ".asked"
"""File in a source's folder that lists the requested files; some may be missing."""


def fetch_files(
    name: str,
    paths: Collection[str],
    folder: Path,
    get_tar: Callable[[Path], Path],
    *,
    version: str = "",
    outer_folders: int = 0,
) -> None:
    """Unpacks files into ``folder/name``, unless they were requested before or exist.

    Args:
      name: name of the source.
      paths: the files, "ARCHIVE!/FILE" for those in an archive; missing ones are skipped.
      folder: folder of all sources; it exists.
      get_tar: gets the tar archive, if it likes into the given temporary folder.
      version: files of another version are replaced.
      outer_folders: number of folders of the tar archive that contain all paths.

    Raises:
      SatError: the archive can't be had, is damaged, or files can't be written.
    """
    target, marker = folder / name, f"{_REQUESTED}-{version}" if version else _REQUESTED
    if _is_complete(target, marker, paths):
        return
    inside = collections.defaultdict[str, list[str]](list)
    for path in paths:
        archive, _, inner = path.rpartition(INSIDE)
        inside[archive].append(inner)
    plain = inside.pop("", [])
    with (
        explain_write_errors(folder),
        tempfile.TemporaryDirectory(dir=folder, prefix=".new-") as temporary,
    ):
        new, files = Path(temporary), Path(temporary, "files")
        files.mkdir()
        _unpack(get_tar(new), {*plain, *inside}, files, outer_folders)
        for archive, names in inside.items():
            if (files / archive).is_file():
                unpack_archive(files / archive, names)
                (files / archive).unlink()
        (files / marker).write_text("\n".join(sorted(paths)), encoding="utf-8")
        # A rename, so that an existing folder is complete.
        if target.exists():
            target.rename(new / "old")
        files.rename(target)


def _is_complete(target: Path, marker: str, paths: Collection[str]) -> bool:
    if not (target / marker).is_file():
        return False
    requested = set((target / marker).read_text(encoding="utf-8").splitlines())
    return all(path in requested or (target / path).is_file() for path in paths)


def _unpack(tar: Path, paths: Collection[str], folder: Path, outer_folders: int) -> None:
    """Writes only the named files, because one archive has thousands."""
    try:
        with tarfile.open(tar) as members:
            for member in members:
                path = "/".join(PurePosixPath(member.name).parts[outer_folders:])
                source = members.extractfile(member) if path in paths and member.isfile() else None
                if source is not None:
                    target = folder / path
                    target.parent.mkdir(parents=True, exist_ok=True)
                    with target.open("wb") as out:
                        shutil.copyfileobj(source, out)
    except (tarfile.TarError, EOFError, zlib.error) as error:
        tar.unlink()
        raise SatError(
            f"{tar.name} was damaged ({error}) and is removed: run this again"
        ) from error
