"""What came of the model in the box: tables and a picture of all seeds."""

import collections
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from projects.box_model.measured import (
    LEAST_SCENES,
    Found,
    Way,
    read_kinds_of_classes,
    read_measured,
    read_memory,
    read_validation,
)
from projects.box_model.runs import CLIP_MODEL, LONGER_CLIP_MODEL, without_memory
from projects.box_model.stage_log import StageLog
from sat_jax.errors import SatError
from sat_jax.plots.map_by_delay import Curve, Level, plot_map_by_delay
from sat_jax.runtime.files import atomic_write

_COLUMNS = {
    "mAP": ("mAP",),
    "lwlrap": ("lwlrap",),
    "segment mAP": ("strong", "segment_mAP"),
    "onset delay s": ("strong", "onset_delay_median"),
    "change²": ("stability", "mean_squared_change"),
}
"""What is told of each, and where it stands in metrics.json."""


def write_results(work: Path) -> str:
    """Writes ``work/results.md`` and ``.png`` of all seeds that were measured; returns the text.

    Raises:
      SatError: nothing was measured, a file is damaged, or the results can't be written.
    """
    found = read_measured(work)
    if not found:
        raise SatError(f"{work} has no results: give the --workdir of projects.box_model.course")
    by_kind = read_kinds_of_classes(work)
    parts = [
        _table(found),
        _gains(found, by_kind),
        _kinds(
            read_memory(work),
            ("continuing", "new"),
            "Segment mAP of classes that were heard in the chunk before too (continuing), and of "
            "those that were not (new):",
        ),
        _kinds(
            by_kind,
            ("played", "recorded", "common"),
            "mAP of classes that the soundfont plays in test scenes (played), of those that "
            "nothing played there is of (recorded), and of all that are in "
            f"{LEAST_SCENES} test scenes or more (common):",
        ),
        _validation(read_validation(work)),
        _times(StageLog(work)),
    ]
    text = "\n".join("\n".join([*lines, ""]) for lines in parts if lines)
    _draw(work / "results.png", found)
    with atomic_write(work / "results.md") as temporary:
        temporary.write_text(text, encoding="utf-8")
    return text


def _table(found: Found) -> list[str]:
    lines = [
        f"| model | heard as | delay s | seeds | {' | '.join(_COLUMNS)} |",
        "|---|---|--:|--:|" + "--:|" * len(_COLUMNS),
    ]
    for way in _sorted(found):
        by_seed = found[way].values()
        cells = [_spread([_at(result, keys) for result in by_seed]) for keys in _COLUMNS.values()]
        lines.append(f"{_about(way, len(by_seed))} {' | '.join(cells)} |")
    return [*lines, "", "(Of several seeds: the mean, and the lowest and highest.)"]


def _about(way: Way, seeds: int) -> str:
    delay = "all" if way.delay is None else f"{way.delay:g}"
    return f"| {way.model} | {way.mode} | {delay} | {seeds} |"


def _sorted(found: Found) -> list[Way]:
    return sorted(found, key=lambda way: (way.delay is None, -(way.delay or 0.0), way))


def _gains(found: Found, by_kind: Found) -> list[str]:
    """How much better each streaming model is than others of its seed that hear chunks alone."""
    measures = {
        "mAP": (found, _COLUMNS["mAP"]),
        "mAP of common classes": (by_kind, ("common", "mAP")),
        "segment mAP": (found, _COLUMNS["segment mAP"]),
    }
    streams = [way for way in _sorted(found) if way.mode == "stream"]
    seeds = sorted({seed for way in streams for seed in found[way]})
    rows = []
    for way in streams:
        for model in (CLIP_MODEL, LONGER_CLIP_MODEL, without_memory(way.model)):
            other = Way("chunks", way.delay, model)
            for measure, (results, keys) in measures.items():
                if gains := _differences(results.get(way, {}), results.get(other, {}), keys):
                    cells = [f"{gains[seed]:+.3f}" if seed in gains else "-" for seed in seeds]
                    values = list(gains.values())
                    means = (f"{statistics.mean(values):+.3f}", _interval(values))
                    cells = [way.model, f"{model} in chunks", measure, *means, *cells]
                    rows.append(f"| {' | '.join(cells)} |")
    if not rows:
        return []
    by_seed = " | ".join(f"seed {seed}" for seed in seeds)
    return [
        "What streaming models gain over others of the same delay and seed, its mean, and where by "
        "Student's t the mean of endlessly many seeds is in 95 of 100 cases:",
        "",
        f"| gain of | over | in | mean | 95 % | {by_seed} |",
        "|---|---|---|--:|--:|" + "--:|" * len(seeds),
        *rows,
    ]


def _interval(values: Sequence[float]) -> str:
    """Where the mean of all that such values are drawn from lies; nothing is known from one."""
    if len(values) < 2:
        return "-"
    from scipy import stats

    error = statistics.stdev(values) / len(values) ** 0.5
    half = float(stats.t.ppf(0.975, len(values) - 1)) * error
    middle = statistics.mean(values)
    return f"{middle - half:+.3f} to {middle + half:+.3f}"


def _differences(
    ours: Mapping[int, Any], theirs: Mapping[int, Any], keys: Sequence[str]
) -> dict[int, float]:
    """By seed, where both are known."""
    pairs = {seed: (_at(ours[seed], keys), _at(theirs.get(seed), keys)) for seed in ours}
    return {
        seed: our - their
        for seed, (our, their) in pairs.items()
        if our is not None and their is not None
    }


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


def _kinds(found: Found, kinds: Sequence[str], title: str) -> list[str]:
    """A mean average precision, and over how many classes, for each kind of result."""
    if not found:
        return []
    columns = " | ".join(f"{kind} | classes" for kind in kinds)
    lines = [title, "", f"| model | heard as | delay s | seeds | {columns} |"]
    lines.append("|---|---|--:|--:|" + "--:|--:|" * len(kinds))
    for way in _sorted(found):
        by_seed, cells = list(found[way].values()), []
        for kind in kinds:
            spread = _spread([result[kind]["mAP"] for result in by_seed])
            cells += [spread, str(by_seed[0][kind]["classes"])]
        lines.append(f"{_about(way, len(by_seed))} {' | '.join(cells)} |")
    return lines


def _validation(scores: Mapping[str, Mapping[int, float]]) -> list[str]:
    """The mAP by which a seed is chosen."""
    if not scores:
        return []
    seeds = sorted({seed for by_seed in scores.values() for seed in by_seed})
    lines = [
        "mAP on the validation scenes:",
        "",
        f"| model | {' | '.join(f'seed {seed}' for seed in seeds)} |",
        "|---|" + "--:|" * len(seeds),
    ]
    for model, by_seed in scores.items():
        cells = [f"{by_seed[seed]:.3f}" if seed in by_seed else "-" for seed in seeds]
        lines.append(f"| {model} | {' | '.join(cells)} |")
    return lines


def _times(log: StageLog) -> list[str]:
    times = log.seconds().items()
    rows = [f"| {name} | {t['wall']:.0f} | {t['cpu']:.0f} |" for name, t in times]
    lines = ["| stage, of all seeds | seconds | CPU seconds |", "|---|--:|--:|", *rows]
    if unknown := log.unknown_starts():
        told = ", ".join(f"{count} of {stage}" for stage, count in unknown.items())
        lines += ["", f"(Without the time of starts that were killed, or still run: {told}.)"]
    return lines


def _draw(path: Path, found: Found) -> None:
    """The means over seeds; the streaming models, each of one delay, are a curve together."""
    points = collections.defaultdict[tuple[str, str], dict[float, list[float]]](dict)
    levels = []
    for way in _sorted(found):
        values = [result["mAP"] for result in found[way].values() if result["mAP"] is not None]
        if not values:
            continue
        if way.delay is None:
            levels.append(Level(way.model, way.mode, statistics.mean(values)))
        else:
            points[way.model.removesuffix(f"_{way.delay:g}s"), way.mode][way.delay] = values
    curves = [
        Curve(
            *name,
            delays=list(by_delay),
            mean_average_precision=[statistics.mean(values) for values in by_delay.values()],
            ranges=_ranges(by_delay.values()),
        )
        for name, by_delay in points.items()
    ]
    plot_map_by_delay(path, curves, levels)


def _ranges(values: Iterable[Sequence[float]]) -> list[tuple[float, float]]:
    """The lowest and highest of the seeds at each delay; nothing where there is one seed."""
    values = list(values)
    if max(map(len, values)) == 1:
        return []
    return [(min(some), max(some)) for some in values]
