"""What was measured of the model in the box, read from where programs left it."""

import collections
import csv
import functools
import statistics
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from projects.box_model.runs import all_taggers
from projects.box_model.scenes.soundfont import read_voices
from projects.box_model.scenes.sounds import with_classes_above
from projects.box_model.stage_log import read_json, read_json_lines
from sat_jax.errors import SatError

LEAST_SCENES = 8
"""Test scenes that a class needs to be told of: average precision over fewer is mostly chance."""

_Fields = Mapping[str, type | tuple[type, ...]]
_NUMBER = (int, float, type(None))
_RESULT: _Fields = {
    "name": str,
    "mode": str,
    "delay": _NUMBER,
    "mAP": _NUMBER,
    "lwlrap": _NUMBER,
    "strong": (dict, type(None)),
    "stability": (dict, type(None)),
    "classes": int,
    "classes_without_positives": int,
    "clips_scored": int,
}
_MEMORY: _Fields = {"model": str, "mode": str, "delay": _NUMBER, "continuing": dict, "new": dict}
"""What is read of each result, and must be there."""

_SEEDS = "seed*[0-9]"
"""What the folders of seeds are called."""


class Way(NamedTuple):
    """A model and how it heard; without a delay, it waited for a clip's end."""

    mode: str
    delay: float | None
    model: str


Found = Mapping[Way, Mapping[int, Any]]
"""What was measured of each way, by seed."""


class ClassResult(NamedTuple):
    """How well a class is found.

    Attributes:
      label: the class.
      positives: the scenes that have it.
      average_precision: over all scenes, in [0, 1].
    """

    label: str
    positives: int
    average_precision: float


def read_measured(work: Path) -> Found:
    """What evaluate.py measured of all models of all seeds, as in its metrics.json."""
    return _by_way(
        (_seed(path.parents[2]), Way(result["mode"], result["delay"], path.parent.name), result)
        for path, result in _measurements(work)
    )


def read_memory(work: Path) -> Found:
    """What `projects.box_model.measure_memory` measured: "continuing" and "new"."""
    return _by_way(
        (_seed(path.parent), Way(result["mode"], result["delay"], result["model"]), result)
        for path in sorted(work.glob(f"{_SEEDS}/memory.json"))
        for result in _read_rows(path, _MEMORY)
    )


def read_kinds_of_classes(work: Path) -> Found:
    """Mean average precision of some of the classes.

    Returns:
      "played", classes that the soundfont plays; "recorded", those that none of it reaches (a class
      above one that is played, such as "Music", is neither); and "common", those that are in
      `LEAST_SCENES` scenes or more. Each has `classes` and their `mAP`, None if there are none.
    """
    return _by_way(
        (
            _seed(path.parents[2]),
            Way(result["mode"], result["delay"], path.parent.name),
            _by_kind(_read_classes(path, result)),
        )
        for path, result in _measurements(work)
    )


def read_class_results(work: Path, seed: int, way: Way) -> list[ClassResult]:
    """How well one model finds each class that the test scenes have, the best first.

    Raises:
      SatError: that was not measured.
    """
    for path, result in _measurements(work):
        found = Way(result["mode"], result["delay"], path.parent.name)
        if (_seed(path.parents[2]), found) == (seed, way):
            return sorted(_read_classes(path, result), key=lambda one: -one.average_precision)
    raise SatError(
        f"{work} has no results of {way.model} of seed {seed}: run projects.box_model.course"
    )


def read_validation(work: Path) -> Mapping[str, Mapping[int, float]]:
    """By model and by seed, the highest mAP on the validation scenes; of runs that are through."""
    scores = collections.defaultdict[str, dict[int, float]](dict)
    for path in sorted(work.glob(f"{_SEEDS}/*/log.jsonl")):
        if not (path.parent / "model").is_dir():
            continue
        told = [(line.get("validation") or {}).get("mAP") for line in read_json_lines(path)]
        if known := [score for score in told if score is not None]:  # Autoencoders have none.
            scores[path.parent.name][_seed(path.parents[1])] = max(known)
    return scores


def best_seed(work: Path, model: str) -> tuple[int, float]:
    """The seed whose streaming model has the highest mAP on validation scenes, and that mAP.

    Raises:
      SatError: none was trained, or something is missing of a seed, or was not measured yet.
    """
    if not any(work.glob(f"{_SEEDS}/{model}")):
        raise SatError(f"{work} has no {model}: give the --workdir of projects.box_model.course")
    scores = read_validation(work)
    measured, memory = read_measured(work), read_memory(work)
    for folder in sorted(work.glob(_SEEDS)):
        seed, names = _seed(folder), all_taggers(model.split("_")[1])
        wanted = {
            **{folder / name / "model": seed in scores.get(name, {}) for name in names},
            **{
                folder / "measured" / name / "metrics.json": _is_whole(measured, seed, name)
                for name in names
            },
            folder / "memory.json": all(_is_whole(memory, seed, name) for name in names),
        }
        if missing := [path for path, is_there in wanted.items() if not is_there]:
            raise SatError(
                f"{folder} is not through, {missing[0]} is missing or not whole: run "
                "projects.box_model.course to its end, or move that seed away"
            )
    return max(scores[model].items(), key=lambda item: item[1])


def _is_whole(found: Found, seed: int, model: str) -> bool:
    """Whether a seed has results of a model, and of all ways in which other seeds' was heard."""
    ways = [by_seed for way, by_seed in found.items() if way.model == model]
    return bool(ways) and all(seed in by_seed for by_seed in ways)


def _measurements(work: Path) -> Iterator[tuple[Path, Any]]:
    for path in sorted(work.glob(f"{_SEEDS}/measured/*/metrics.json")):
        for result in _read_rows(path, _RESULT):
            yield path, result


def _read_rows(path: Path, fields: _Fields) -> list[dict[str, Any]]:
    rows = read_json(path)
    if not isinstance(rows, list) or not all(
        isinstance(row, dict)
        and all(name in row and isinstance(row[name], kind) for name, kind in fields.items())
        for row in rows
    ):
        raise SatError(f"{path} is damaged: remove it, and the recipe makes it again")
    return rows


def _seed(folder: Path) -> int:
    return int(folder.name.removeprefix("seed"))


def _by_way(results: Iterable[tuple[int, Way, Any]]) -> Found:
    found = collections.defaultdict[Way, dict[int, Any]](dict)
    for seed, way, result in results:
        found[way][seed] = result
    return found


def _read_classes(metrics: Path, result: Any) -> list[ClassResult]:
    """The classes that the clips of a measurement have."""
    path = metrics.parent / "per_class" / f"{result['name']}.csv"
    try:
        with path.open(encoding="utf-8", newline="") as file:
            classes = [
                ClassResult(row["label"], int(row["positives"]), float(row["average_precision"]))
                for row in csv.DictReader(file)
                if row["average_precision"]
            ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SatError(_damaged(path, metrics)) from error
    if len(classes) != result["classes"] - result["classes_without_positives"]:
        raise SatError(_damaged(path, metrics))
    return classes


def _damaged(path: Path, metrics: Path) -> str:
    return f"{path} is missing or damaged: remove {metrics.parent}, and the course makes it again"


def _by_kind(classes: Iterable[ClassResult]) -> dict[str, Any]:
    played, reached = _played_classes()
    values: dict[str, list[float]] = {"played": [], "recorded": [], "common": []}
    for one in classes:
        if one.label in played:
            values["played"].append(one.average_precision)
        elif one.label not in reached:
            values["recorded"].append(one.average_precision)
        if one.positives >= LEAST_SCENES:
            values["common"].append(one.average_precision)
    return {
        kind: {"classes": len(some), "mAP": statistics.mean(some) if some else None}
        for kind, some in values.items()
    }


@functools.cache
def _played_classes() -> tuple[frozenset[str], frozenset[str]]:
    """Classes that the soundfont plays in test scenes, and these with all above them."""
    played = {voice.label for voice in read_voices() if voice.split == "test"}
    reached = {name for label in played for name in with_classes_above(label)}
    return frozenset(played), frozenset(reached)
