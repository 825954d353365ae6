"""What came of ESC-10: a table of its folds and one of its classes."""

import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from projects.box_model.stage_log import read_json
from sat_jax.errors import SatError

Choices = Mapping[str, Any]
"""By fold, what `projects.box_model.choose_class` wrote."""


def read_choice(path: Path) -> Any:
    """What `projects.box_model.choose_class` wrote of one fold.

    Raises:
      SatError: the file is damaged, or of an earlier version.
    """
    chosen = read_json(path)
    wanted = {"accuracy", "by_class", "among_first_five"}
    if not isinstance(chosen, dict) or not chosen.keys() >= wanted:
        raise SatError(f"{path} is damaged: remove it, and the recipe makes it again")
    return chosen


def summarize_folds(zero_shot: Choices, fine_tuned: Choices) -> dict[str, Any]:
    """The numbers of results.json: accuracies over all folds, by fold and by class.

    Returns:
      "zero_shot" and "fine_tuned", each with "accuracy", "by_fold" and "by_class"; the former has
      "among_first_five" too. All are means over folds, which ESC-10 has the same number of clips
      of each class in.
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
    """The tables of results.md, of what `summarize_folds` returned."""
    as_it_is, tuned = result["zero_shot"], result["fine_tuned"]
    folds = list(as_it_is["by_fold"])
    lines = [
        f"| choice among the classes | all | {' | '.join(f'fold {fold}' for fold in folds)} |",
        "|---|--:|" + "--:|" * len(folds),
    ]
    for title, kind in (("zero-shot", as_it_is), ("fine-tuned on the other folds", tuned)):
        cells = [f"{value:.3f}" for value in (kind["accuracy"], *kind["by_fold"].values())]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    lines += [
        "",
        "Zero-shot, a name of a clip's class is among the five likeliest of all the model's for "
        f"{as_it_is['among_first_five']:.3f} of the clips.",
    ]
    for title, kind in (("zero-shot", as_it_is), ("fine-tuned", tuned)):
        lines += ["", f"| class | {title} |", "|---|--:|"]
        lines += [f"| {name} | {value:.3f} |" for name, value in kind["by_class"].items()]
    return "\n".join(lines) + "\n"
