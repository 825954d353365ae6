"""What a recipe keeps of its stages: how each result was made, and the time it took."""

import collections
import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sat_jax.errors import SatError
from sat_jax.runtime.files import atomic_write, explain_write_errors

_SECONDS = ("wall", "cpu")


def read_json(path: Path) -> Any:
    """What stands in a file that a recipe, or a program that it called, wrote.

    Raises:
      SatError: the file is damaged or can't be read.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SatError(
            f"{path} is damaged: remove it, and the recipe makes it again ({error})"
        ) from error


def read_json_lines(path: Path) -> list[Any]:
    """What stands in each whole line of a log that train.py writes.

    Raises:
      SatError: the file is damaged or can't be read.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        return [dict(json.loads(line)) for line in lines if line.endswith("\n")]
    except (OSError, ValueError, TypeError) as error:
        raise SatError(f"{path} is damaged: train anew in another folder ({error})") from error


def write_json(path: Path, data: Any) -> None:
    """Writes a file whole or not at all; its folder is made if need be.

    Raises:
      SatError: it can't be written.
    """
    with explain_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as temporary:
            temporary.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")


class StageLog:
    """``WORKDIR/stages.json``: by result, its stage, what it was made by, and seconds so far.

    Several recipes may write into it: it is read anew before each change, and locked meanwhile.
    """

    def __init__(self, work: Path) -> None:
        """Opens the log of a course.

        Args:
          work: the course's folder.
        """
        self._work, self._path = work, work / "stages.json"

    def begin(self, stage: str, result: Path, made_by: Sequence[str]) -> None:
        """Notes how a result is made, before anything is done for it.

        A result that is there must have been made in the same way: otherwise another model's
        numbers would be told as this one's.

        Args:
          stage: what its time is counted as.
          result: a file or folder in the course's folder.
          made_by: the command, and whatever else the result depends on.

        Raises:
          SatError: it was made in another way, or nothing tells how; or the log is damaged.
        """
        name, now = self._inside(str(result)), [self._inside(part) for part in made_by]
        if result.exists():
            _check_same(result, self._read().get(name, {}).get("made_by"), now, self._work)
            return
        with self._changing() as stages:
            before = stages.get(name, {})
            counted = {key: before.get(key, 0) for key in (*_SECONDS, "begun", "ended")}
            counted["begun"] += 1
            stages[name] = {"stage": stage, "made_by": now, **counted}

    def end(self, result: Path, wall: float, cpu: float) -> None:
        """Adds what a start of a stage took, however it ended."""
        with self._changing() as stages:
            stage = stages[self._inside(str(result))]
            stage["wall"] += wall
            stage["cpu"] += cpu
            stage["ended"] += 1

    def seconds(self) -> Mapping[str, Mapping[str, float]]:
        """Seconds of all results of each stage over all starts, on the clock and of the CPUs."""
        total = collections.defaultdict[str, dict[str, float]](lambda: dict.fromkeys(_SECONDS, 0.0))
        for stage in self._read().values():
            for kind in _SECONDS:
                total[stage["stage"]][kind] += stage[kind]
        return total

    def unknown_starts(self) -> Mapping[str, int]:
        """By stage, how many starts have told no time: they were killed, or still run."""
        unknown = collections.Counter[str]()
        for stage in self._read().values():
            unknown[stage["stage"]] += stage.get("begun", 0) - stage.get("ended", 0)
        return +unknown

    @contextlib.contextmanager
    def _changing(self) -> Iterator[dict[str, dict[str, Any]]]:
        """What stands in the log, to be changed, while nobody else changes it."""
        import filelock

        with contextlib.ExitStack() as stack:
            with explain_write_errors(self._path):
                self._work.mkdir(parents=True, exist_ok=True)
                stack.enter_context(filelock.FileLock(self._work / ".stages.lock"))
            stages = self._read()
            yield stages
            write_json(self._path, stages)

    def _read(self) -> dict[str, dict[str, Any]]:
        if not self._path.exists():
            return {}
        try:
            stages = dict(read_json(self._path))
            if not all(stage.keys() >= {"stage", *_SECONDS} for stage in stages.values()):
                raise ValueError("something is missing")
            return stages
        except (SatError, ValueError, TypeError, AttributeError) as error:
            # Made again it would not know how the results were made.
            raise SatError(f"{self._path} is damaged: {_way_out(self._work)}") from error

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
