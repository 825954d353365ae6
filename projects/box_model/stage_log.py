"""Logs how each result of a course was made, and the time it took; reads and writes JSON."""

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
    """Reads a JSON file that the course wrote.

    Raises:
      SatError: it is damaged or can't be read.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SatError(
            f"{path} is damaged ({error}): remove it and run the course again"
        ) from error


def read_json_lines(path: Path) -> list[Any]:
    """Reads the complete lines of a log of train.py.

    Raises:
      SatError: it is damaged or can't be read.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        return [dict(json.loads(line)) for line in lines if line.endswith("\n")]
    except (OSError, ValueError, TypeError) as error:
        raise SatError(f"{path} is damaged ({error}): train again in another folder") from error


def write_json(path: Path, data: Any) -> None:
    """Writes the whole file or nothing; creates its folder.

    Raises:
      SatError: it can't be written.
    """
    with explain_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as temporary:
            temporary.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")


class StageLog:
    """``WORKDIR/stages.json``: stage, command and seconds of each result.

    Several processes may write to it. It is locked and read again before each change.
    """

    def __init__(self, work: Path) -> None:
        """Opens the log of the folder `work`."""
        self._work, self._path = work, work / "stages.json"

    def begin(self, stage: str, result: Path, made_by: Sequence[str]) -> None:
        """Logs how a result will be made, or checks how an existing one was made.

        Args:
          stage: stage that its time is added to.
          result: a file or folder in the course's folder.
          made_by: the command, and texts that identify what else the result depends on.

        Raises:
          SatError: the result exists but was made in another or an unknown way, so that its numbers
            would be taken for those of another model; or the log is damaged.
        """
        name, now = self._relative(str(result)), [self._relative(part) for part in made_by]
        if result.exists():
            _check_same(result, self._read().get(name, {}).get("made_by"), now, self._work)
            return
        with self._changing() as stages:
            before = stages.get(name, {})
            counted = {key: before.get(key, 0) for key in (*_SECONDS, "begun", "ended")}
            counted["begun"] += 1
            stages[name] = {"stage": stage, "made_by": now, **counted}

    def end(self, result: Path, wall: float, cpu: float) -> None:
        """Adds the seconds of a start, whether it succeeded or not."""
        with self._changing() as stages:
            stage = stages[self._relative(str(result))]
            stage["wall"] += wall
            stage["cpu"] += cpu
            stage["ended"] += 1

    def seconds(self) -> Mapping[str, Mapping[str, float]]:
        """Returns "wall" and "cpu" seconds by stage, over all results and starts."""
        total = collections.defaultdict[str, dict[str, float]](lambda: dict.fromkeys(_SECONDS, 0.0))
        for stage in self._read().values():
            for kind in _SECONDS:
                total[stage["stage"]][kind] += stage[kind]
        return total

    def unfinished_starts(self) -> Mapping[str, int]:
        """Returns, by stage, the starts of unknown time: they were killed, or still run."""
        unfinished = collections.Counter[str]()
        for stage in self._read().values():
            unfinished[stage["stage"]] += stage.get("begun", 0) - stage.get("ended", 0)
        return +unfinished

    @contextlib.contextmanager
    def _changing(self) -> Iterator[dict[str, dict[str, Any]]]:
        """Locks the log, yields its content, and writes it back."""
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
                raise ValueError("fields are missing")
            return stages
        except (SatError, ValueError, TypeError, AttributeError) as error:
            # Without it, nobody knows how the results were made.
            raise SatError(f"{self._path} is damaged: {_way_out(self._work)}") from error

    def _relative(self, text: str) -> str:
        """Replaces the folder's path, so that the folder can be moved."""
        return text.replace(str(self._work), "WORKDIR")


def _check_same(result: Path, before: Sequence[str] | None, now: Sequence[str], work: Path) -> None:
    if before is None:
        raise SatError(f"{result} exists, but not in stages.json: {_way_out(work)}")
    if before != now:
        gone, new = (" ".join(_less(*pair)) for pair in ((before, now), (now, before)))
        raise SatError(
            f"{result} was made with {gone or 'less'}, not {new or 'less'}: {_way_out(work)}"
        )


def _way_out(work: Path) -> str:
    return f"choose another --workdir, or remove {work}"


def _less(some: Sequence[str], others: Sequence[str]) -> list[str]:
    return [part for part in some if part not in others]
