"""Unpacks files of Debian packages, which are downloaded but never installed."""

import shutil
import subprocess
from collections.abc import Collection, Sequence
from pathlib import Path

from projects.box_model.scenes.fetching import fetch_files
from sat_jax.errors import SatError


def fetch_package(package: str, paths: Collection[str], folder: Path) -> None:
    """Downloads a Debian package and unpacks files into ``folder/package``, unless already done.

    Args:
      package: name of the package.
      paths: the files; those that this version of the package lacks are skipped.
      folder: folder of all sources; it exists.

    Raises:
      SatError: a program is missing, or the package can't be downloaded or unpacked.
    """
    fetch_files(package, paths, folder, lambda temporary: _download(package, temporary))


def _download(package: str, folder: Path) -> Path:
    """Returns the package's files as a tar archive in the folder."""
    for program in ("apt-get", "dpkg-deb"):
        if shutil.which(program) is None:
            raise SatError(
                f"{program} is missing, and {package} is a Debian package: use Debian or Ubuntu, "
                "perhaps in a container"
            )
    _run(["apt-get", "download", package], folder, f"cannot download package {package}")
    archive = next(folder.glob("*.deb"))
    tar = archive.with_suffix(".tar")
    with tar.open("wb") as file:
        done = subprocess.run(
            ["dpkg-deb", "--fsys-tarfile", archive], stdout=file, stderr=subprocess.PIPE
        )
    if done.returncode:
        reason = " ".join(done.stderr.decode(errors="replace").split())
        raise SatError(f"cannot unpack {archive.name} ({reason}): run this again")
    return tar


def _run(command: Sequence[str], folder: Path, problem: str) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace")
    if done.returncode:
        # apt-get prints many warnings; errors begin with "E:".
        lines = [line for line in done.stderr.splitlines() if line.startswith("E:")]
        reason = " ".join((lines or done.stderr.splitlines() or ["no reason given"])[-1].split())
        raise SatError(f"{problem} ({reason}): run 'apt-get update', or use another mirror")
