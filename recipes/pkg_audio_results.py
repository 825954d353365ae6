"""What came of the model in the box: a row for each way of hearing, over all seeds (floor 6)."""

import collections
import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sat_jax.report.files import replacing_file

_COLUMNS = {
    "mAP": ("mAP",),
    "lwlrap": ("lwlrap",),
    "segment mAP": ("strong", "segment_mAP"),
    "onset delay s": ("strong", "onset_delay_median"),
    "change²": ("stability", "mean_squared_change"),
}
"""What is told of each, and where it stands in metrics.json."""


def write_results(work: Path) -> str:
    """Writes ``work/results.md`` of all seeds that were measured; returns its text."""
    found = collections.defaultdict[tuple[str, str, float], list[Any]](list)
    for path in sorted(work.glob("seed*/measured/*/metrics.json")):
        for result in json.loads(path.read_text(encoding="utf-8")):
            found[path.parent.name, result["mode"], result["delay"]].append(result)
    times = json.loads((work / "seconds.json").read_text(encoding="utf-8"))
    text = "\n".join([*_table(found), "", *_times(times)]) + "\n"
    with replacing_file(work / "results.md") as temporary:
        temporary.write_text(text, encoding="utf-8")
    return text


def _table(found: Mapping[tuple[str, str, float], Sequence[Any]]) -> list[str]:
    lines = [
        f"| model | heard as | delay s | seeds | {' | '.join(_COLUMNS)} |",
        "|---|---|--:|--:|" + "--:|" * len(_COLUMNS),
    ]
    for (name, mode, delay), results in sorted(found.items(), key=lambda item: item[0][1:]):
        cells = [_spread([_at(result, keys) for result in results]) for keys in _COLUMNS.values()]
        lines.append(f"| {name} | {mode} | {delay:g} | {len(results)} | {' | '.join(cells)} |")
    return lines


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


def _times(times: Mapping[str, Mapping[str, float]]) -> list[str]:
    rows = [f"| {name} | {t['wall']:.0f} | {t['cpu']:.0f} |" for name, t in times.items()]
    return ["| stage, of all seeds | seconds | CPU seconds |", "|---|--:|--:|", *rows]
