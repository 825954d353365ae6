r"""Finds recordings that are copies of each other, in whole or in part.

python -m projects.box_model.scenes.copies --packages data/packages [--apart_from FOLDER] [--write]

Compares the waveforms of all recordings in projects/box_model/data/clips.csv with each other,
and with all audio in another folder. Prints pairs of different groups that share a part, and how
well it matches. Speech and music are compared within their kind only, and not with the other
folder. --packages is that of projects.box_model.scenes. --write merges the groups of copies in the
table, and removes recordings that are in the other folder.
"""

import csv
import io
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from absl import flags

from projects.box_model.scenes.matching import RATE, Match, find_matches
from projects.box_model.scenes.sounds import RECORDINGS, Recording, read_recordings
from sat_jax.audio import read_blocks
from sat_jax.errors import SatError
from sat_jax.runtime.command_line import Program, refuse_arguments, require_flags

_LONGEST = 60 * RATE
_APART_GROUP = ""
"""Group of all files outside the packages."""
_SUFFIXES = {".wav", ".ogg", ".flac", ".mp3", ".oga"}


class Item(NamedTuple):
    """A file to compare, with its group and its kind."""

    path: Path
    group: str
    kind: str


FLAGS = flags.FlagValues()

_PACKAGES = flags.DEFINE_string(
    "packages", None, "Folder of unpacked packages and repositories. Required.", flag_values=FLAGS
)
_APART = flags.DEFINE_string("apart_from", None, "Folder of audio to exclude.", flag_values=FLAGS)
_WRITE = flags.DEFINE_boolean("write", False, "Change the table.", flag_values=FLAGS)
_WORKERS = flags.DEFINE_integer(
    "workers", os.cpu_count() or 1, "Threads.", lower_bound=1, flag_values=FLAGS
)


def main(arguments: Sequence[str]) -> bool:
    """Searches for copies."""
    del arguments
    folder = Path(str(_PACKAGES.value))
    items = [
        Item(folder / one.source / one.path, one.group, _kind(one)) for one in read_recordings()
    ]
    if _APART.value is not None:
        items += _items_apart(Path(_APART.value))
    matches = find_copies(items, _WORKERS.value, PROGRAM.report)
    for match in matches:
        print(_line(items, match, folder), flush=True)
    if _WRITE.value:
        pairs = [(match.first, match.second) for match in matches]
        text = RECORDINGS.read_text(encoding="utf-8")
        RECORDINGS.write_text(change_table(text, pairs), encoding="utf-8")
    print(f"{len(matches)} pairs of {len(items)} recordings")
    return False


def _check(arguments: Sequence[str]) -> None:
    refuse_arguments(arguments, "name the folders with --packages and --apart_from")
    require_flags(_PACKAGES)


def _kind(recording: Recording) -> str:
    return next((name for name in ("Speech", "Music") if name in recording.labels), "other")


def _items_apart(folder: Path) -> list[Item]:
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES)
    if not paths:
        raise SatError(f"{folder} has no audio")
    return [Item(path, _APART_GROUP, "other") for path in paths]


def find_copies(
    items: Sequence[Item], workers: int, report: Callable[[SatError], None]
) -> list[Match]:
    """Returns pairs of different groups that share a part.

    Args:
      items: the files.
      workers: number of threads.
      report: called with the error of each unreadable file, which matches nothing.
    """

    def related(one: int, other: int) -> bool:
        return items[one].group == items[other].group or items[one].kind != items[other].kind

    read = [_read(item.path, report) for item in items]
    return [match for match in find_matches(read, related, workers=workers) if match.is_copy]


def _read(path: Path, report: Callable[[SatError], None]) -> np.ndarray:
    """Reads at most a minute of a recording; returns no samples if that fails."""
    samples = [np.zeros(0, np.float32)]
    try:
        for block in read_blocks(path, sample_rate=RATE):
            samples.append(block)
            if sum(map(len, samples)) >= _LONGEST:
                break
    except SatError as error:
        report(error)
    return np.concatenate(samples)[:_LONGEST]


def _line(items: Sequence[Item], match: Match, packages: Path) -> str:
    first, second = (_name(items[i].path, packages) for i in (match.first, match.second))
    return (
        f"{first}\t{second}\t{match.slid:.2f} slid\t{match.lag:+.2f} s\t"
        f"{match.copied} of {match.blocks} blocks\t{match.whitened:.2f} whitened"
    )


def _name(path: Path, packages: Path) -> str:
    return str(path.relative_to(packages) if path.is_relative_to(packages) else path)


def change_table(text: str, pairs: Iterable[tuple[int, int]]) -> str:
    """Merges groups of copies, and removes rows with a copy outside the table.

    Args:
      text: the table as CSV.
      pairs: indices of copies; indices from the number of rows on are outside the table.

    Returns:
      The other rows in their order. Merged groups take the name of the largest.
    """
    names, *rows = csv.reader(io.StringIO(text))
    place, inside, gone = names.index("group"), list[tuple[int, int]](), set[int]()
    for pair in pairs:
        if max(pair) < len(rows):
            inside.append(pair)
        else:
            gone.add(min(pair))
    groups = [row[place] for row in rows]
    for one, other in inside:
        if groups[one] != groups[other] and not gone & {one, other}:
            both = sorted({groups[one], groups[other]})
            name = max(both, key=groups.count)
            groups = [name if group in both else group for group in groups]
    kept = [
        [*row[:place], group, *row[place + 1 :]]
        for i, (row, group) in enumerate(zip(rows, groups, strict=True))
        if i not in gone
    ]
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([names, *kept])
    return out.getvalue()


PROGRAM = Program(main=main, check=_check, flag_values=FLAGS, doc=__doc__)

if __name__ == "__main__":
    PROGRAM.run("projects.box_model.scenes.copies", sys.argv[1:])
