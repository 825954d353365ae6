"""Writes the results by class that stand beside a bundled model."""

import itertools
from collections.abc import Sequence
from pathlib import Path

from projects.box_model.measured import (
    MIN_SCENES,
    ClassResult,
    Setting,
    best_seed,
    read_class_results,
    read_kinds_of_classes,
    read_measured,
)
from sat_jax.errors import SatError

_BOUNDS = (1.0, 0.7, 0.5, 0.3, 0.1, 0.0)
"""Bounds of average precision between the rows of the table."""


def class_results(work: Path, name: str) -> str:
    """Returns the results of the best seed of a streaming model, as Markdown.

    Args:
      work: folder of the course.
      name: the model, such as "SAT_XS_2s".

    Raises:
      SatError: the model was not trained or not measured.
    """
    seed, score = best_seed(work, name)
    settings = [each for each in read_measured(work) if (each.mode, each.model) == ("stream", name)]
    if not settings:
        raise SatError(f"{work} has no results of {name}: run projects.box_model.course to its end")
    [setting] = settings
    classes = read_class_results(work, seed, setting)
    return "\n".join(
        [
            f"# Results of {name}",
            "",
            f"Seed {seed} has the highest mAP on the validation scenes ({score:.3f}). Below are "
            "its results on the test scenes, before its classes were balanced and its weights "
            "rounded, in stream mode with "
            f"chunks of {setting.delay:g} s. See projects/box_model/README.md for the rows. "
            "Written by `python -m projects.box_model.bundle`.",
            "",
            *_measures(work, seed, setting),
            "",
            *_classes(classes),
            "",
        ]
    )


def _measures(work: Path, seed: int, setting: Setting) -> list[str]:
    result, kinds = read_measured(work)[setting][seed], read_kinds_of_classes(work)[setting][seed]
    played, recorded = kinds["played"], kinds["recorded"]
    rows = {
        f"mAP, {result['classes'] - result['classes_without_positives']} classes": result["mAP"],
        f"mAP of the {played['classes']} that the soundfont plays": played["mAP"],
        f"mAP of the {recorded['classes']} that only recordings have": recorded["mAP"],
        "lwlrap": result["lwlrap"],
        "segment mAP": (result["strong"] or {}).get("segment_mAP"),
    }
    lines = [f"| {name} | {value:.3f} |" for name, value in rows.items() if value is not None]
    return [f"| {result['clips_scored']} test scenes | |", "|---|--:|", *lines]


def _classes(results: Sequence[ClassResult]) -> list[str]:
    common = [one for one in results if one.positives >= MIN_SCENES]
    lines = [
        f"Average precision of the {len(common)} classes in at least {MIN_SCENES} scenes:",
        "",
        "| average precision | classes | names |",
        "|---|--:|---|",
    ]
    for high, low in itertools.pairwise(_BOUNDS):
        names = [
            f"{one.label} {one.average_precision:.2f}"
            for one in common
            if low <= one.average_precision < high or one.average_precision == high == _BOUNDS[0]
        ]
        lines.append(f"| {low:.2f} to {high:.2f} | {len(names)} | {'; '.join(names)} |")
    return lines
