"""What a recipe keeps of its stages: how each result was made, and the time it took (floor 6)."""

import collections
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sat_jax.errors import SatError
from sat_jax.files import naming_file, replacing_file


def read_json(path: Path) -> Any:
    """What stands in a file that a recipe, or a program that it called, wrote.

    Raises:
      SatError: the file is damaged or can't be read.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SatError(
            f"{path} is damaged: remove it, and the same command makes it again ({error})"
        ) from error


def write_json(path: Path, data: Any) -> None:
    """Writes a file whole or not at all; its folder is made if need be.

    Raises:
      SatError: it can't be written.
    """
    with naming_file(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing_file(path) as temporary:
            temporary.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")


class StageLog:
    """``WORKDIR/stages.json``: by result, its stage, what it was made by, and seconds so far."""

    def __init__(self, work: Path) -> None:
        """Reads the log of a course.

        Args:
          work: the course's folder.

        Raises:
          SatError: the log is damaged.
        """
        self._work, self._path = work, work / "stages.json"
        self._stages: dict[str, dict[str, Any]] = {}
        if self._path.exists():
            try:
                self._stages = dict(read_json(self._path))
            except (SatError, ValueError, TypeError) as error:
                # Made again it would not know how the results were made.
                raise SatError(f"{self._path} is damaged: {_way_out(work)}") from error

    def begin(self, stage: str, result: Path, made_by: Sequence[str]) -> None:
        """Notes how a result is made, before anything is done for it.

        A result that is there must have been made in the same way: otherwise another model's
        numbers would be told as this one's.

        Args:
          stage: what its time is counted as.
          result: a file or folder in the course's folder.
          made_by: the command, and whatever else the result depends on.

        Raises:
          SatError: it was made in another way, or nothing tells how.
        """
        name, now = self._inside(str(result)), [self._inside(part) for part in made_by]
        before = self._stages.get(name)
        if result.exists():
            _check_same(result, before["made_by"] if before else None, now, self._work)
            return
        seconds = {kind: before[kind] if before else 0.0 for kind in ("wall", "cpu")}
        self._stages[name] = {"stage": stage, "made_by": now, **seconds}
        write_json(self._path, self._stages)

    def add_seconds(self, result: Path, wall: float, cpu: float) -> None:
        """Adds what a start of a stage took."""
        stage = self._stages[self._inside(str(result))]
        stage["wall"] += wall
        stage["cpu"] += cpu
        write_json(self._path, self._stages)

    def seconds(self) -> Mapping[str, Mapping[str, float]]:
        """Seconds of all results of each stage over all starts, on the clock and of the CPUs."""
        total = collections.defaultdict[str, dict[str, float]](lambda: {"wall": 0.0, "cpu": 0.0})
        for stage in self._stages.values():
            for kind in ("wall", "cpu"):
                total[stage["stage"]][kind] += stage[kind]
        return total

    def _inside(self, text: str) -> str:
        """A path that stays the same where the folder is moved."""
        return text.replace(str(self._work), "WORKDIR")


def _check_same(result: Path, before: Sequence[str] | None, now: Sequence[str], work: Path) -> None:
    if before is None:
        raise SatError(f"{result} is there, but not how it was made: {_way_out(work)}")
    if before != now:
        gone, new = (" ".join(_less(*pair)) for pair in ((before, now), (now, before)))
        raise SatError(
            f"{result} was made with {gone or 'less'}, now it is {new or 'less'}: {_way_out(work)}"
        )


def _way_out(work: Path) -> str:
    return f"give another --workdir, or remove {work}"


def _less(some: Sequence[str], others: Sequence[str]) -> list[str]:
    return [part for part in some if part not in others]
