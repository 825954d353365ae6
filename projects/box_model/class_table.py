"""How well a model in the box finds each class, in words for its users."""

import itertools
from collections.abc import Sequence
from pathlib import Path

from projects.box_model.measured import (
    LEAST_SCENES,
    ClassResult,
    Way,
    best_seed,
    read_class_results,
    read_kinds_of_classes,
    read_measured,
)
from sat_jax.errors import SatError

_BOUNDS = (1.0, 0.7, 0.5, 0.3, 0.1, 0.0)
"""Average precisions between which the rows of the table lie."""


def class_results(work: Path, name: str) -> str:
    """What the best of a course's models of a name hears as a stream, as Markdown.

    Args:
      work: folder of `projects.box_model.course`.
      name: a streaming model, such as "SAT_XS_2s".

    Raises:
      SatError: it was not trained there, or not measured.
    """
    seed, score = best_seed(work, name)
    ways = [way for way in read_measured(work) if (way.mode, way.model) == ("stream", name)]
    if not ways:
        raise SatError(f"{work} has no results of {name}: run projects.box_model.course to its end")
    [way] = ways
    classes = read_class_results(work, seed, way)
    return "\n".join(
        [
            f"# Results of {name}",
            "",
            f"Of seed {seed}, which has the highest mAP on the validation scenes ({score:.3f}), "
            "before its weights were rounded. It heard the test scenes as streams in steps of "
            f"{way.delay:g} s; what a row tells stands in docs/pkg_audio.md. Written by `python -m "
            "projects.box_model.bundle`.",
            "",
            *_measures(work, seed, way),
            "",
            *_classes(classes),
            "",
        ]
    )


def _measures(work: Path, seed: int, way: Way) -> list[str]:
    result, sources = read_measured(work)[way][seed], read_kinds_of_classes(work)[way][seed]
    played, recorded = sources["played"], sources["recorded"]
    rows = {
        f"mAP, {result['classes'] - result['classes_without_positives']} classes": result["mAP"],
        f"mAP of the {played['classes']} that the soundfont plays there": played["mAP"],
        f"mAP of the {recorded['classes']} that nothing played there is of": recorded["mAP"],
        "lwlrap": result["lwlrap"],
        f"mAP of each {way.delay:g} s": (result["strong"] or {}).get("segment_mAP"),
    }
    told = [f"| {what} | {value:.3f} |" for what, value in rows.items() if value is not None]
    return [f"| {result['clips_scored']} test scenes | |", "|---|--:|", *told]


def _classes(results: Sequence[ClassResult]) -> list[str]:
    often = [one for one in results if one.positives >= LEAST_SCENES]
    lines = [
        f"Average precision of the {len(often)} classes that are in {LEAST_SCENES} scenes or more:",
        "",
        "| average precision | classes | which |",
        "|---|--:|---|",
    ]
    for high, low in itertools.pairwise(_BOUNDS):
        names = [
            f"{one.label} {one.average_precision:.2f}"
            for one in often
            if low <= one.average_precision < high or one.average_precision == high == _BOUNDS[0]
        ]
        lines.append(f"| {low:.2f} to {high:.2f} | {len(names)} | {'; '.join(names)} |")
    return lines
