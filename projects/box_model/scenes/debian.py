"""Files out of Debian packages, which are downloaded and unpacked but never installed."""

import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from sat_jax.errors import SatError
from sat_jax.runtime.files import explain_write_errors

_ASKED = ".asked"
"""The file in a package's folder that says which files were asked for: some may not be there."""


def fetch_package(package: str, paths: Sequence[str], folder: Path) -> None:
    """Unpacks some files of a Debian package into ``folder/package``, unless they are there.

    Args:
      package: the package's name.
      paths: files in it; those that this version of the package lacks are passed over.
      folder: of all packages; it exists.

    Raises:
      SatError: a program is missing, or the package can't be had or unpacked.
    """
    target, asked = folder / package, "\n".join(sorted(paths))
    if (target / _ASKED).is_file() and (target / _ASKED).read_text(encoding="utf-8") == asked:
        return
    for program in ("apt-get", "dpkg-deb"):
        if shutil.which(program) is None:
            raise SatError(
                f"{program} is missing, and {package} is a Debian package: use Debian or Ubuntu, "
                "in a container perhaps"
            )
    with (
        explain_write_errors(folder),
        tempfile.TemporaryDirectory(dir=folder, prefix=".new-") as name,
    ):
        new = Path(name)
        _run(["apt-get", "download", package], new, f"package {package} can't be had")
        archive = next(new.glob("*.deb"))
        (new / "files").mkdir()
        _unpack(archive, set(paths), new / "files")
        (new / "files" / _ASKED).write_text(asked, encoding="utf-8")
        # In one stroke, so that a folder that is there is complete.
        if target.exists():
            target.rename(new / "old")
        (new / "files").rename(target)


def _run(command: Sequence[str], folder: Path, problem: str) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace")
    if done.returncode:
        # apt-get warns of much; what went wrong begins with "E:".
        lines = [line for line in done.stderr.splitlines() if line.startswith("E:")]
        reason = " ".join((lines or done.stderr.splitlines() or ["no reason given"])[-1].split())
        raise SatError(f"{problem} ({reason}): try 'apt-get update' before, or another mirror")


def _unpack(archive: Path, paths: set[str], folder: Path) -> None:
    """Writes the named files of a .deb, and no others: one package has thousands."""
    # The tar goes through a file: what fails is then dpkg-deb or the tar, never both.
    tar = archive.with_suffix(".tar")
    with tar.open("wb") as file:
        done = subprocess.run(
            ["dpkg-deb", "--fsys-tarfile", archive], stdout=file, stderr=subprocess.PIPE
        )
    if done.returncode:
        reason = " ".join(done.stderr.decode(errors="replace").split())
        raise SatError(f"{archive.name} can't be unpacked ({reason}): run this again")
    with tarfile.open(tar) as members:
        for member in members:
            path = str(PurePosixPath(member.name))
            source = members.extractfile(member) if path in paths and member.isfile() else None
            if source is not None:
                target = folder / path
                target.parent.mkdir(parents=True, exist_ok=True)
                with target.open("wb") as out:
                    shutil.copyfileobj(source, out)
