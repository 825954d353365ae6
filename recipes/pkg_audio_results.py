"""What came of the model in the box: tables and a picture of all seeds (floor 6)."""

import collections
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from recipes.stage_log import StageLog, read_json
from sat_jax.files import replacing_file
from sat_jax.report.plot_delays import Curve, Level, plot_map_by_delay

_COLUMNS = {
    "mAP": ("mAP",),
    "lwlrap": ("lwlrap",),
    "segment mAP": ("strong", "segment_mAP"),
    "onset delay s": ("strong", "onset_delay_median"),
    "change²": ("stability", "mean_squared_change"),
}
"""What is told of each, and where it stands in metrics.json."""


class _Way(NamedTuple):
    """A model and how it heard; without a delay, it waited for a clip's end."""

    mode: str
    delay: float | None
    model: str


_Found = Mapping[_Way, Mapping[int, Any]]
"""What was measured of each way, by seed."""


def write_results(work: Path) -> str:
    """Writes ``work/results.md`` and ``.png`` of all seeds that were measured; returns the text."""
    found = collections.defaultdict[_Way, dict[int, Any]](dict)
    for path in sorted(work.glob("seed*/measured/*/metrics.json")):
        seed = int(path.parts[-4].removeprefix("seed"))
        for result in read_json(path):
            way = _Way(result["mode"], result["delay"], path.parent.name)
            found[way][seed] = result
    parts = [_table(found), _gains(found), _kinds(_by_kind(work)), _times(StageLog(work))]
    text = "\n".join("\n".join([*lines, ""]) for lines in parts if lines)
    with replacing_file(work / "results.md") as temporary:
        temporary.write_text(text, encoding="utf-8")
    _draw(work / "results.png", found)
    return text


def _table(found: _Found) -> list[str]:
    lines = [
        f"| model | heard as | delay s | seeds | {' | '.join(_COLUMNS)} |",
        "|---|---|--:|--:|" + "--:|" * len(_COLUMNS),
    ]
    for way in _sorted(found):
        by_seed = found[way].values()
        cells = [_spread([_at(result, keys) for result in by_seed]) for keys in _COLUMNS.values()]
        delay = "all" if way.delay is None else f"{way.delay:g}"
        about = f"| {way.model} | {way.mode} | {delay} | {len(by_seed)} |"
        lines.append(f"{about} {' | '.join(cells)} |")
    return [*lines, "", "(All seeds begin with one autoencoder, which was trained with seed 0.)"]


def _sorted(found: _Found) -> list[_Way]:
    return sorted(found, key=lambda way: (way.delay is None, -(way.delay or 0.0), way))


def without_memory(name: str) -> str:
    """What the clip model is called that learns as this streaming model does."""
    return name.replace("SAT", "no_memory")


def _gains(found: _Found) -> list[str]:
    """How much better each streaming model is than others of its seed that hear chunks alone."""
    lines = []
    for way in _sorted(found):
        if way.mode != "stream":
            continue
        for model in ("vit", without_memory(way.model)):
            other = found.get(_Way("chunks", way.delay, model), {})
            seeds = [seed for seed in sorted(found[way]) if seed in other]
            for measure in ("mAP", "segment mAP"):
                keys = _COLUMNS[measure]
                gains = [(s, _difference(found[way][s], other[s], keys)) for s in seeds]
                if known := [f"{gain:+.3f} ({s})" for s, gain in gains if gain is not None]:
                    lines.append(
                        f"- {measure} of {way.model} less that of {model} in chunks of "
                        f"{way.delay:g} s (seed): {', '.join(known)}"
                    )
    return lines


def _difference(ours: Any, theirs: Any, keys: Sequence[str]) -> float | None:
    values = _at(ours, keys), _at(theirs, keys)
    return None if values[0] is None or values[1] is None else values[0] - values[1]


def _at(result: Any, keys: Sequence[str]) -> float | None:
    for key in keys:
        result = None if result is None else result.get(key)
    return result


def _spread(values: Sequence[float | None]) -> str:
    """The mean, and the lowest and highest where there are several."""
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    mean = f"{statistics.mean(known):.3g}"
    return f"{mean} ({min(known):.3g} to {max(known):.3g})" if len(known) > 1 else mean


def _by_kind(work: Path) -> _Found:
    """What `recipes.measure_memory` measured."""
    found = collections.defaultdict[_Way, dict[int, Any]](dict)
    for path in sorted(work.glob("seed*/memory.json")):
        for result in read_json(path):
            way = _Way(result["mode"], result["delay"], result["model"])
            found[way][int(path.parent.name.removeprefix("seed"))] = result
    return found


def _kinds(found: _Found) -> list[str]:
    """Segment mAP of sounds that went on, and of those that began: what memory is good for."""
    if not found:
        return []
    lines = [
        "Segment mAP of classes that were heard in the chunk before too (continuing), and of those "
        "that were not (new):",
        "",
        "| model | heard as | delay s | seeds | continuing | classes | new | classes |",
        "|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    for way in _sorted(found):
        by_seed, cells = list(found[way].values()), []
        for kind in ("continuing", "new"):
            spread = _spread([result[kind]["mAP"] for result in by_seed])
            cells += [spread, str(by_seed[0][kind]["classes"])]
        about = f"| {way.model} | {way.mode} | {way.delay:g} | {len(by_seed)} |"
        lines.append(f"{about} {' | '.join(cells)} |")
    return lines


def _times(log: StageLog) -> list[str]:
    times = log.seconds().items()
    rows = [f"| {name} | {t['wall']:.0f} | {t['cpu']:.0f} |" for name, t in times]
    lines = ["| stage, of all seeds | seconds | CPU seconds |", "|---|--:|--:|", *rows]
    if unknown := log.unknown_starts():
        told = ", ".join(f"{count} of {stage}" for stage, count in unknown.items())
        lines += ["", f"(Without the time of starts that were killed, or still run: {told}.)"]
    return lines


def _draw(path: Path, found: _Found) -> None:
    """The means over seeds; the streaming models, each of one delay, are a curve together."""
    points = collections.defaultdict[tuple[str, str], dict[float, float]](dict)
    levels = []
    for way in _sorted(found):
        mean = statistics.mean(result["mAP"] for result in found[way].values())
        if way.delay is None:
            levels.append(Level(way.model, way.mode, mean))
        else:
            points[way.model.removesuffix(f"_{way.delay:g}s"), way.mode][way.delay] = mean
    curves = [Curve(*name, list(by), list(by.values())) for name, by in points.items()]
    plot_map_by_delay(path, curves, levels)
