r"""Finds recordings that come from given sounds of Freesound.

python -m projects.box_model.scenes.freesound --numbers NUMBERS.csv

Prints each recording of projects/box_model/data/clips.csv whose credit or path has a number of the
column "freesound" in the CSV file. The exit code is 1 if there is one.
"""

import csv
import re
import sys
from collections.abc import Iterable, Sequence, Set
from pathlib import Path

from absl import flags

from projects.box_model.scenes.sounds import Recording, read_recordings
from sat_jax.errors import SatError
from sat_jax.runtime.command_line import Program, refuse_arguments, require_flags

FLAGS = flags.FlagValues()

_NUMBERS = flags.DEFINE_string(
    "numbers", None, 'CSV file with a column "freesound". Required.', flag_values=FLAGS
)


def main(arguments: Sequence[str]) -> bool:
    """Prints the recordings; returns whether there are any."""
    del arguments
    numbers, recordings = _read_numbers(Path(str(_NUMBERS.value))), read_recordings()
    found = from_freesound(recordings, numbers)
    for one in found:
        print(f"{one.source}/{one.path}: {one.credit}")
    print(f"{len(found)} of {len(recordings)} recordings come from {len(numbers)} sounds")
    return bool(found)


def from_freesound(recordings: Iterable[Recording], numbers: Set[str]) -> list[Recording]:
    """Returns the recordings whose credit or path has one of the numbers.

    Freesound names files "NUMBER__AUTHOR__TITLE".
    """
    found = []
    for one in recordings:
        named = re.findall(r"\bfreesound (\d+)", one.credit) + re.findall(r"\b(\d+)__", one.path)
        if not numbers.isdisjoint(named):
            found.append(one)
    return found


def _read_numbers(path: Path) -> set[str]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return {row["freesound"] for row in csv.DictReader(file)}
    except OSError as error:
        raise SatError(f"cannot read {path}: {error.strerror or error}") from error
    except (KeyError, UnicodeDecodeError, csv.Error) as error:
        raise SatError(f'{path} is not a CSV file with a column "freesound"') from error


def _check(arguments: Sequence[str]) -> None:
    refuse_arguments(arguments, "name the file with --numbers")
    require_flags(_NUMBERS)


PROGRAM = Program(main=main, check=_check, flag_values=FLAGS, doc=__doc__)

if __name__ == "__main__":
    PROGRAM.run("projects.box_model.scenes.freesound", sys.argv[1:])
