"""Writes the results of a course: tables and a plot over all seeds."""

import collections
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from projects.box_model.measured import (
    MIN_SCENES,
    RECORDINGS_FOLDER,
    SCENES,
    WINDOWS_MODEL,
    Results,
    Setting,
    read_kinds_of_classes,
    read_measured,
    read_memory,
    read_validation,
    without_memory,
)
from projects.box_model.stage_log import StageLog
from sat_jax.errors import SatError
from sat_jax.plots.map_by_delay import Curve, plot_map_by_delay
from sat_jax.runtime.files import atomic_write

_COLUMNS = {
    "mAP": ("mAP",),
    "lwlrap": ("lwlrap",),
    "segment mAP": ("strong", "segment_mAP"),
    "onset delay s": ("strong", "onset_delay_median"),
    "change²": ("stability", "mean_squared_change"),
}
"""Columns of the table, and their keys in metrics.json."""


def write_results(work: Path) -> str:
    """Writes ``work/results.md`` and ``results.png`` of all measured seeds; returns the text.

    Raises:
      SatError: nothing was measured, a file is damaged, or the results can't be written.
    """
    results = read_measured(work)
    if not results:
        raise SatError(f"{work} has no results: name the --workdir of projects.box_model.course")
    by_kind = read_kinds_of_classes(work)
    parts = [
        _table(results, _COLUMNS),
        _recordings(read_measured(work, RECORDINGS_FOLDER)),
        _gains(results, by_kind),
        *(
            _kinds(
                read_memory(work, scenes),
                ("whole", "continuing", "new"),
                f"mAP of {scenes} scenes (whole), and segment mAP of classes that are also present "
                "in the chunk before (continuing) and of those that are not (new):",
            )
            for scenes in SCENES
        ),
        _kinds(
            by_kind,
            ("played", "recorded", "common"),
            "mAP of classes that the soundfont plays in test scenes (played), of those that only "
            f"recordings have (recorded), and of all in at least {MIN_SCENES} scenes (common):",
        ),
        _validation(read_validation(work)),
        _times(StageLog(work)),
    ]
    text = "\n".join("\n".join([*lines, ""]) for lines in parts if lines)
    _draw(work / "results.png", results)
    with atomic_write(work / "results.md") as temporary:
        temporary.write_text(text, encoding="utf-8")
    return text


def _recordings(results: Results) -> list[str]:
    """Tabulates the results on held-out recordings."""
    if not results:
        return []
    columns = {name: _COLUMNS[name] for name in ("mAP", "lwlrap")}
    return ["The same on held-out recordings that are not mixed:", "", *_table(results, columns)]


def _table(results: Results, columns: Mapping[str, Sequence[str]]) -> list[str]:
    lines = [
        f"| model | mode | delay s | seeds | {' | '.join(columns)} |",
        "|---|---|--:|--:|" + "--:|" * len(columns),
    ]
    for setting in _sorted(results):
        by_seed = results[setting].values()
        cells = [_spread([_at(result, keys) for result in by_seed]) for keys in columns.values()]
        lines.append(f"{_about(setting, len(by_seed))} {' | '.join(cells)} |")
    return [*lines, "", "(Mean over seeds, and lowest to highest.)"]


def _about(setting: Setting, seeds: int) -> str:
    return f"| {setting.model} | {setting.mode} | {setting.delay:g} | {seeds} |"


def _sorted(results: Results) -> list[Setting]:
    return sorted(results, key=lambda setting: (-setting.delay, setting))


def _gains(results: Results, by_kind: Results) -> list[str]:
    """Compares each streaming model with models of its seed that score single chunks."""
    measures = {
        "mAP": (results, _COLUMNS["mAP"]),
        "mAP of common classes": (by_kind, ("common", "mAP")),
        "segment mAP": (results, _COLUMNS["segment mAP"]),
    }
    streams = [each for each in _sorted(results) if each.mode == "stream"]
    seeds = sorted({seed for setting in streams for seed in results[setting]})
    rows = []
    for setting in streams:
        for model in (WINDOWS_MODEL, without_memory(setting.model)):
            other = Setting("chunks", setting.delay, model)
            for measure, (by_setting, keys) in measures.items():
                ours, theirs = by_setting.get(setting, {}), by_setting.get(other, {})
                if gains := _differences(ours, theirs, keys):
                    cells = [f"{gains[seed]:+.3f}" if seed in gains else "-" for seed in seeds]
                    values = list(gains.values())
                    means = (f"{statistics.mean(values):+.3f}", _interval(values))
                    cells = [setting.model, f"{model} in chunks", measure, *means, *cells]
                    rows.append(f"| {' | '.join(cells)} |")
    if not rows:
        return []
    by_seed = " | ".join(f"seed {seed}" for seed in seeds)
    return [
        "Gain of streaming models over others of the same delay and seed: mean, 95 % Student-t "
        "interval of the mean, and each seed:",
        "",
        f"| gain of | over | in | mean | 95 % | {by_seed} |",
        "|---|---|---|--:|--:|" + "--:|" * len(seeds),
        *rows,
    ]


def _interval(values: Sequence[float]) -> str:
    """Formats the 95 % Student-t interval of the mean; "-" for one value."""
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
    """Returns ours minus theirs for each seed that has both."""
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
    """Formats the mean, and the lowest and highest of several values."""
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    mean = f"{statistics.mean(known):.3g}"
    return f"{mean} ({min(known):.3g} to {max(known):.3g})" if len(known) > 1 else mean


def _kinds(results: Results, kinds: Sequence[str], title: str) -> list[str]:
    """Tabulates mAP and number of classes for each kind."""
    if not results:
        return []
    columns = " | ".join(f"{kind} | classes" for kind in kinds)
    lines = [title, "", f"| model | mode | delay s | seeds | {columns} |"]
    lines.append("|---|---|--:|--:|" + "--:|--:|" * len(kinds))
    for setting in _sorted(results):
        by_seed, cells = list(results[setting].values()), []
        for kind in kinds:
            spread = _spread([result[kind]["mAP"] for result in by_seed])
            cells += [spread, str(by_seed[0][kind]["classes"])]
        lines.append(f"{_about(setting, len(by_seed))} {' | '.join(cells)} |")
    return lines


def _validation(scores: Mapping[str, Mapping[int, float]]) -> list[str]:
    """Tabulates the mAP by which a seed is chosen."""
    if not scores:
        return []
    seeds = sorted({seed for by_seed in scores.values() for seed in by_seed})
    lines = [
        "mAP on the validation scenes and recordings:",
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
    if unfinished := log.unfinished_starts():
        listed = ", ".join(f"{count} of {stage}" for stage, count in unfinished.items())
        lines += ["", f"(Without the time of starts that were killed or still run: {listed}.)"]
    return lines


def _draw(path: Path, results: Results) -> None:
    """Plots means over seeds. The streaming models, each of one delay, share a curve."""
    points = collections.defaultdict[tuple[str, str], dict[float, list[float]]](dict)
    for setting in _sorted(results):
        by_seed = results[setting].values()
        values = [result["mAP"] for result in by_seed if result["mAP"] is not None]
        if values:
            name = setting.model.removesuffix(f"_{setting.delay:g}s")
            points[name, setting.mode][setting.delay] = values
    curves = [
        Curve(
            *name,
            delays=list(by_delay),
            mean_average_precision=[statistics.mean(values) for values in by_delay.values()],
            ranges=_ranges(by_delay.values()),
        )
        for name, by_delay in points.items()
    ]
    plot_map_by_delay(path, curves)


def _ranges(values: Iterable[Sequence[float]]) -> list[tuple[float, float]]:
    """Returns the lowest and highest value at each delay; nothing for one seed."""
    values = list(values)
    if max(map(len, values)) == 1:
        return []
    return [(min(some), max(some)) for some in values]
