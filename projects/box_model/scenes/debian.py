"""Unpacks files of Debian packages, which are downloaded but never installed."""

import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from sat_jax.errors import SatError
from sat_jax.runtime.files import explain_write_errors

_REQUESTED = ".asked"
"""File in a package's folder that lists the requested files, of which some may be missing."""


def fetch_package(package: str, paths: Sequence[str], folder: Path) -> None:
    """Downloads a Debian package and unpacks files into ``folder/package``, unless already done.

    Args:
      package: name of the package.
      paths: the files; those that this version of the package lacks are skipped.
      folder: folder of all packages; it exists.

    Raises:
      SatError: a program is missing, or the package can't be downloaded or unpacked.
    """
    target, requested = folder / package, "\n".join(sorted(paths))
    earlier = target / _REQUESTED
    if earlier.is_file() and earlier.read_text(encoding="utf-8") == requested:
        return
    for program in ("apt-get", "dpkg-deb"):
        if shutil.which(program) is None:
            raise SatError(
                f"{program} is missing, and {package} is a Debian package: use Debian or Ubuntu, "
                "perhaps in a container"
            )
    with (
        explain_write_errors(folder),
        tempfile.TemporaryDirectory(dir=folder, prefix=".new-") as name,
    ):
        new = Path(name)
        _run(["apt-get", "download", package], new, f"cannot download package {package}")
        archive = next(new.glob("*.deb"))
        (new / "files").mkdir()
        _unpack(archive, set(paths), new / "files")
        (new / "files" / _REQUESTED).write_text(requested, encoding="utf-8")
        # A rename, so that an existing folder is complete.
        if target.exists():
            target.rename(new / "old")
        (new / "files").rename(target)


def _run(command: Sequence[str], folder: Path, problem: str) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace")
    if done.returncode:
        # apt-get prints many warnings; errors begin with "E:".
        lines = [line for line in done.stderr.splitlines() if line.startswith("E:")]
        reason = " ".join((lines or done.stderr.splitlines() or ["no reason given"])[-1].split())
        raise SatError(f"{problem} ({reason}): run 'apt-get update', or use another mirror")


def _unpack(archive: Path, paths: set[str], folder: Path) -> None:
    """Writes only the named files of a .deb, because one package has thousands."""
    # Via a file, so that errors of dpkg-deb and of the tar are told apart.
    tar = archive.with_suffix(".tar")
    with tar.open("wb") as file:
        done = subprocess.run(
            ["dpkg-deb", "--fsys-tarfile", archive], stdout=file, stderr=subprocess.PIPE
        )
    if done.returncode:
        reason = " ".join(done.stderr.decode(errors="replace").split())
        raise SatError(f"cannot unpack {archive.name} ({reason}): run this again")
    with tarfile.open(tar) as members:
        for member in members:
            path = str(PurePosixPath(member.name))
            source = members.extractfile(member) if path in paths and member.isfile() else None
            if source is not None:
                target = folder / path
                target.parent.mkdir(parents=True, exist_ok=True)
                with target.open("wb") as out:
                    shutil.copyfileobj(source, out)
