"""Reads what the programs of a course measured."""

import collections
import csv
import functools
import statistics
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from projects.box_model.scenes.soundfont import read_voices
from projects.box_model.scenes.sounds import with_parents
from projects.box_model.stage_log import read_json, read_json_lines
from sat_jax.errors import SatError

DELAYS = (2, 1)
"""Chunk lengths of the streaming models in seconds."""

SIZES = {"xs": "XS", "tiny": "T", "small": "S", "base": "B"}
"""Sizes in configs, and in the names of streaming models."""

WINDOWS_MODEL = "windows"
"""The clip model that learns from windows of 2 s; streaming models start from it."""

SCENES_FOLDER, RECORDINGS_FOLDER = "measured", "recordings"
"""Folders of a seed with results on the test scenes, and on held-out recordings as they are."""

MIN_SCENES = 8
"""Results of a class in fewer test scenes are not shown, because they are mostly chance."""

_Fields = Mapping[str, type | tuple[type, ...]]
_NUMBER = (int, float, type(None))
_RESULT: _Fields = {
    "name": str,
    "mode": str,
    "delay": (int, float),
    "mAP": _NUMBER,
    "lwlrap": _NUMBER,
    "strong": (dict, type(None)),
    "stability": (dict, type(None)),
    "classes": int,
    "classes_without_positives": int,
    "clips_scored": int,
}
SCENES = ("related", "random")
"""Kinds of test scenes, which are measured apart."""
_MEMORY: _Fields = {
    **dict.fromkeys(("model", "mode", "scenes"), str),
    "delay": (int, float),
    **dict.fromkeys(("whole", "continuing", "new"), dict),
}

_SEEDS = "seed*[0-9]"
"""Folders of seeds."""


class Setting(NamedTuple):
    """A model, and the mode and delay in seconds of its evaluation."""

    mode: str
    delay: float
    model: str


Results = Mapping[Setting, Mapping[int, Any]]
"""Results of each setting by seed."""


class ClassResult(NamedTuple):
    """The result of a class.

    Attributes:
      label: the class.
      positives: scenes that have it.
      average_precision: over all scenes, in [0, 1].
    """

    label: str
    positives: int
    average_precision: float


def streaming_model(size: str, seconds: int) -> str:
    """Returns the name of a streaming model, such as "SAT_XS_2s" for the size "XS"."""
    return f"SAT_{size}_{seconds}s"


def without_memory(name: str) -> str:
    """Returns the name of the model that learns like this streaming model, without a cache."""
    return name.replace("SAT", "no_memory")


def all_taggers(size: str) -> list[str]:
    """Returns the names of all measured models of a seed, for a size such as "XS"."""
    streaming = [streaming_model(size, seconds) for seconds in DELAYS]
    return [WINDOWS_MODEL, *streaming, *map(without_memory, streaming)]


def read_measured(work: Path, folder: str = SCENES_FOLDER) -> Results:
    """Reads the metrics.json of evaluate.py of all models and seeds."""
    return _by_setting(
        (_seed(path.parents[2]), Setting(result["mode"], result["delay"], path.parent.name), result)
        for path, result in _measurements(work, folder)
    )


def read_memory(work: Path, scenes: str) -> Results:
    """Reads what `projects.box_model.measure_memory` measured on one of `SCENES`."""
    return _by_setting(
        (_seed(path.parent), Setting(result["mode"], result["delay"], result["model"]), result)
        for path in sorted(work.glob(f"{_SEEDS}/memory.json"))
        for result in _read_rows(path, _MEMORY)
        if result["scenes"] == scenes
    )


def read_kinds_of_classes(work: Path) -> Results:
    """Computes mean average precision over kinds of classes.

    Returns:
      "played": the soundfont plays the class in test scenes. "recorded": it plays neither the
      class nor a subclass. A parent of a played class, such as "Music", is in neither kind.
      "common": classes in at least `MIN_SCENES` scenes. Each has the number of `classes`
      and their `mAP`, None if there are none.
    """
    return _by_setting(
        (
            _seed(path.parents[2]),
            Setting(result["mode"], result["delay"], path.parent.name),
            _by_kind(_read_classes(path, result)),
        )
        for path, result in _measurements(work, SCENES_FOLDER)
    )


def read_class_results(work: Path, seed: int, setting: Setting) -> list[ClassResult]:
    """Reads the results of all classes in the test scenes, best first.

    Raises:
      SatError: the setting was not measured.
    """
    for path, result in _measurements(work, SCENES_FOLDER):
        found = Setting(result["mode"], result["delay"], path.parent.name)
        if (_seed(path.parents[2]), found) == (seed, setting):
            return sorted(_read_classes(path, result), key=lambda one: -one.average_precision)
    raise SatError(
        f"{work} has no results of {setting.model} with seed {seed}: run projects.box_model.course"
    )


def read_validation(work: Path) -> Mapping[str, Mapping[int, float]]:
    """Reads the highest validation mAP of finished runs, by model and seed."""
    scores = collections.defaultdict[str, dict[int, float]](dict)
    for path in sorted(work.glob(f"{_SEEDS}/*/log.jsonl")):
        if not (path.parent / "model").is_dir():
            continue
        logged = [(line.get("validation") or {}).get("mAP") for line in read_json_lines(path)]
        if known := [score for score in logged if score is not None]:  # Autoencoders have none.
            scores[path.parent.name][_seed(path.parents[1])] = max(known)
    return scores


def best_seed(work: Path, model: str) -> tuple[int, float]:
    """Returns the seed with the highest validation mAP of a streaming model, and that mAP.

    Raises:
      SatError: no seed was trained, or a seed is not finished.
    """
    if not any(work.glob(f"{_SEEDS}/{model}")):
        raise SatError(f"{work} has no {model}: name the --workdir of projects.box_model.course")
    scores = read_validation(work)
    measured = {
        folder: read_measured(work, folder) for folder in (SCENES_FOLDER, RECORDINGS_FOLDER)
    }
    memory = read_memory(work, SCENES[0])
    for folder in sorted(work.glob(_SEEDS)):
        seed, names = _seed(folder), all_taggers(model.split("_")[1])
        complete = {
            **{folder / name / "model": seed in scores.get(name, {}) for name in names},
            **{
                folder / data / name / "metrics.json": _is_complete(results, seed, name)
                for data, results in measured.items()
                for name in names
            },
            folder / "memory.json": all(_is_complete(memory, seed, name) for name in names),
        }
        if missing := [path for path, is_complete in complete.items() if not is_complete]:
            raise SatError(
                f"{folder} is not finished, {missing[0]} is missing or incomplete: run "
                "projects.box_model.course to its end, or move that seed away"
            )
    return max(scores[model].items(), key=lambda item: item[1])


def _is_complete(results: Results, seed: int, model: str) -> bool:
    """Whether a seed has a model's results in all settings in which other seeds have them."""
    settings = [by_seed for setting, by_seed in results.items() if setting.model == model]
    return bool(settings) and all(seed in by_seed for by_seed in settings)


def _measurements(work: Path, folder: str) -> Iterator[tuple[Path, Any]]:
    for path in sorted(work.glob(f"{_SEEDS}/{folder}/*/metrics.json")):
        for result in _read_rows(path, _RESULT):
            yield path, result


def _read_rows(path: Path, fields: _Fields) -> list[dict[str, Any]]:
    rows = read_json(path)
    if not isinstance(rows, list) or not all(
        isinstance(row, dict)
        and all(name in row and isinstance(row[name], kind) for name, kind in fields.items())
        for row in rows
    ):
        raise SatError(f"{path} is damaged: remove it and run the course again")
    return rows


def _seed(folder: Path) -> int:
    return int(folder.name.removeprefix("seed"))


def _by_setting(results: Iterable[tuple[int, Setting, Any]]) -> Results:
    found = collections.defaultdict[Setting, dict[int, Any]](dict)
    for seed, setting, result in results:
        found[setting][seed] = result
    return found


def _read_classes(metrics: Path, result: Any) -> list[ClassResult]:
    """Reads the classes that have positives."""
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
    return f"{path} is missing or damaged: remove {metrics.parent} and run the course again"


def _by_kind(classes: Iterable[ClassResult]) -> dict[str, Any]:
    played, with_their_parents = _played_classes()
    values: dict[str, list[float]] = {"played": [], "recorded": [], "common": []}
    for one in classes:
        if one.label in played:
            values["played"].append(one.average_precision)
        elif one.label not in with_their_parents:
            values["recorded"].append(one.average_precision)
        if one.positives >= MIN_SCENES:
            values["common"].append(one.average_precision)
    return {
        kind: {"classes": len(some), "mAP": statistics.mean(some) if some else None}
        for kind, some in values.items()
    }


@functools.cache
def _played_classes() -> tuple[frozenset[str], frozenset[str]]:
    """Returns the classes that the soundfont plays in test scenes, and these with their parents."""
    played = {voice.label for voice in read_voices() if voice.split == "test"}
    with_their_parents = {name for label in played for name in with_parents(label)}
    return frozenset(played), frozenset(with_their_parents)
