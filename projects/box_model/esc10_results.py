"""Tables of ESC-10 by fold and by class."""

import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from projects.box_model.stage_log import read_json
from sat_jax.errors import SatError

Choices = Mapping[str, Any]
"""The output of `projects.box_model.choose_class` by fold."""


def read_choice(path: Path) -> Any:
    """Reads the output of `projects.box_model.choose_class`.

    Raises:
      SatError: the file is damaged, or of an older version.
    """
    chosen = read_json(path)
    wanted = {"accuracy", "by_class", "among_first_five"}
    if not isinstance(chosen, dict) or not chosen.keys() >= wanted:
        raise SatError(f"{path} is damaged: remove it and run the course again")
    return chosen


def summarize_folds(zero_shot: Choices, fine_tuned: Choices) -> dict[str, Any]:
    """Computes accuracies over all folds, by fold and by class, for results.json.

    Means over folds are means over clips, since all folds have equally many clips of each class.

    Returns:
      "zero_shot" and "fine_tuned", each with "accuracy", "by_fold" and "by_class"; zero_shot also
      has "among_first_five".
    """
    result: dict[str, Any] = {
        "zero_shot": _summarize(zero_shot),
        "fine_tuned": _summarize(fine_tuned),
    }
    found = {fold: chosen["among_first_five"] for fold, chosen in zero_shot.items()}
    result["zero_shot"]["among_first_five"] = statistics.mean(found.values())
    return result


def _summarize(choices: Choices) -> dict[str, Any]:
    by_fold = {fold: chosen["accuracy"] for fold, chosen in choices.items()}
    by_class: dict[str, list[float]] = {}
    for chosen in choices.values():
        for name, value in chosen["by_class"].items():
            by_class.setdefault(name, []).append(value)
    return {
        "accuracy": statistics.mean(by_fold.values()),
        "by_fold": by_fold,
        "by_class": {name: statistics.mean(values) for name, values in sorted(by_class.items())},
    }


def write_tables(result: Mapping[str, Any]) -> str:
    """Formats the result of `summarize_folds` as Markdown."""
    zero_shot, tuned = result["zero_shot"], result["fine_tuned"]
    folds = list(zero_shot["by_fold"])
    lines = [
        f"| choice among the classes | all | {' | '.join(f'fold {fold}' for fold in folds)} |",
        "|---|--:|" + "--:|" * len(folds),
    ]
    for title, kind in (("zero-shot", zero_shot), ("fine-tuned on the other folds", tuned)):
        cells = [f"{value:.3f}" for value in (kind["accuracy"], *kind["by_fold"].values())]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    lines += [
        "",
        "Zero-shot, a name of the clip's class is among the five most likely of all classes for "
        f"{zero_shot['among_first_five']:.3f} of the clips.",
    ]
    for title, kind in (("zero-shot", zero_shot), ("fine-tuned", tuned)):
        lines += ["", f"| class | {title} |", "|---|--:|"]
        lines += [f"| {name} | {value:.3f} |" for name, value in kind["by_class"].items()]
    return "\n".join(lines) + "\n"
