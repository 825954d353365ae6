"""Measures how far exported models are from the model that they were made from, on recordings.

python -m benchmarks.export_accuracy sounds
python -m benchmarks.export_accuracy esc10 --clips esc10/esc10.csv --columns file,audioset_names

Each recording is a stream of its own, whose last chunk is filled up with silence. A table of clips
has semicolons between a clip's classes. "own class" is the share of its clips whose most probable
class, by the mean over chunks and among the table's classes, is their own.
Prints a Markdown table and JSON; --json also writes the JSON to a file.
"""

import argparse
import csv
import functools
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.export_step import export_all
from benchmarks.measuring import markdown_table

Scores = Mapping[str, np.ndarray]
"""Probabilities by file name: float32 [chunks, classes]."""
Clips = Mapping[str, frozenset[int]]
"""Indices of a clip's classes, by file name."""


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the benchmark."""
    options = parse_flags(argv)
    os.environ["JAX_PLATFORMS"] = "cpu"
    from sat_jax import Tagger
    from sat_jax.export.runner.run import Step, Stream

    tagger = Tagger.load(options.model)
    clips = read_clips(options.clips, options.columns, tagger.labels) if options.clips else {}
    sounds = read_sounds(options.folder, tagger.framing.hop)
    model = {
        name: np.stack([chunk.probs for chunk in tagger.tag(sound)])
        for name, sound in sounds.items()
    }
    rows = [{"step": "sat-jax (XLA)", "own_class": own_class(model, clips)}]
    with tempfile.TemporaryDirectory() as temporary:
        for export, folder in export_all(options.model, Path(temporary)).items():
            step = Step(folder)
            found = {
                name: np.stack([probs for _, _, probs in Stream(step).push(sound)])
                for name, sound in sounds.items()
            }
            rows.append(
                {"step": export, **compare(found, model), "own_class": own_class(found, clips)}
            )
    report = {"model": options.model, "recordings": len(sounds), "clips": len(clips), "rows": rows}
    if options.json:
        Path(options.json).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(as_markdown(report), json.dumps(report), sep="\n\n")


def parse_flags(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description="Measures the accuracy of exported models.")
    add = functools.partial(parser.add_argument, metavar="X")
    parser.add_argument("folder", type=Path, help="with recordings")
    add("--model", default="SAT_XS_2s", help="a model's name or checkpoint folder")
    add("--clips", type=Path, default=None, help="a CSV file of labelled clips")
    add("--columns", default="file,labels", help="of that file: the file's name, its classes")
    add("--json", default=None, help="file for all numbers")
    return parser.parse_args(argv)


def read_clips(path: Path, columns: str, labels: Sequence[str]) -> Clips:
    """Reads the classes of clips."""
    name, classes = columns.split(",")
    index = {label: i for i, label in enumerate(labels)}
    with path.open(newline="", encoding="utf-8") as file:
        return {
            row[name]: frozenset(index[label] for label in row[classes].split(";"))
            for row in csv.DictReader(file)
        }


def read_sounds(folder: Path, hop: int) -> dict[str, np.ndarray]:
    """Reads all recordings of a folder, filled up with silence to whole chunks, by file name."""
    from sat_jax.audio.files import read_blocks
    from sat_jax.errors import SatError

    sounds = {}
    for path in sorted(folder.iterdir()):
        try:
            sound = np.concatenate(list(read_blocks(path, sample_rate=16_000)))
        except (SatError, OSError):
            continue  # Tables and notes.
        sounds[path.name] = np.pad(sound, (0, -len(sound) % hop))
    return sounds


def compare(found: Scores, model: Scores) -> dict[str, float]:
    """Compares the probabilities of two models for the same sounds."""
    ours, theirs = (np.concatenate([scores[name] for name in model]) for scores in (found, model))
    difference = np.abs(ours.astype(np.float64) - theirs)
    return {
        "same_top": float(np.mean(ours.argmax(1) == theirs.argmax(1))),
        "mean_difference": float(difference.mean()),
        "largest_difference": float(difference.max()),
    }


def own_class(scores: Scores, clips: Clips) -> float | None:
    """Returns the share of clips whose best class is their own; None without clips."""
    if not clips:
        return None
    classes = np.array(sorted(frozenset[int]().union(*clips.values())))
    best = {name: classes[scores[name].mean(0)[classes].argmax()] for name in clips}
    return float(np.mean([best[name] in own for name, own in clips.items()]))


def as_markdown(report: Mapping[str, Any]) -> str:
    """Formats the table."""
    columns = {
        "same_top": "{:.4f}",
        "mean_difference": "{:.1e}",
        "largest_difference": "{:.1e}",
        "own_class": "{:.3f}",
    }
    rows = [
        [row["step"], *("" if row.get(k) is None else f.format(row[k]) for k, f in columns.items())]
        for row in report["rows"]
    ]
    titles = ["same top class", "mean difference", "largest difference", "own class"]
    return markdown_table([report["model"], *titles], rows)


if __name__ == "__main__":
    main()
