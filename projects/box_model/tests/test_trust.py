"""The table of classes that can be trusted."""

import csv
import shutil
from pathlib import Path

import numpy as np

from projects.box_model import trust
from projects.box_model.trust import write_table
from sat_jax import Tagger
from sat_jax.find_model import find_checkpoint
from sat_jax.weights.catalog import BUNDLED, DEFAULT_MODEL
from sat_jax.weights.thresholds_file import load_thresholds
from tests.support.programs import run_program

ROOT = Path(__file__).parents[3]
LABELS = ["Rain", "Dog", "Siren", "Music"]


def test_precision_and_recall_by_counting():
    truth, shown = np.zeros((10, 4), bool), np.zeros((10, 4), bool)
    truth[:4, 0], shown[1:6, 0] = True, True  # Three of five are right, of four.
    truth[5:8, 1], shown[5:6, 1] = True, True
    truth[:3, 2] = True  # Never shown.
    truth[9, 3], shown[8:, 3] = True, True
    text = write_table(truth, shown, LABELS)
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]
    assert [row for row in rows if row and row[0] in LABELS] == [
        ["Dog", "3", "1", "1.00", "0.33"],
        ["Rain", "4", "5", "0.60", "0.75"],
        ["Siren", "3", "0", "-", "0.00"],
    ]
    assert (
        "Of 8 classes shown for 10 held-out recordings, 0.62 are right; of 11 labels, 0.45" in text
    )
    assert "The other 1 classes were shown 2 times, 1 of them rightly." in text


def test_a_model_is_judged_on_its_own_thresholds(tmp_path, capsys):
    """Recordings whose classes are those that the model hears in them, but for one."""
    tagger = Tagger.load(DEFAULT_MODEL)
    thresholds = load_thresholds(BUNDLED / DEFAULT_MODEL, find_checkpoint(DEFAULT_MODEL))
    path = ROOT / "examples" / "bells.flac"
    highest = np.max([chunk.probs for chunk in tagger.tag_file(path)], axis=0)
    heard = [tagger.labels[i] for i in np.flatnonzero(highest >= thresholds)]
    assert len(heard) > 1
    table, output = tmp_path / "clips.csv", tmp_path / "trust.md"
    rows = [["file", "labels"]]
    for i in range(3):
        rows.append([shutil.copy(path, tmp_path / f"{i}.flac"), ";".join(heard[1:])])
    with table.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)
    flags = (f"--model={BUNDLED / DEFAULT_MODEL}", f"--clips={table}", f"--output={output}")
    assert run_program(trust.PROGRAM, "trust", *flags) == 0
    text = output.read_text(encoding="utf-8")
    assert capsys.readouterr().out == text + "\n"
    for label in heard[1:]:
        assert f"| {label} | 3 | 3 | 1.00 | 1.00 |" in text
    assert "were shown 3 times, 0 of them rightly" in text
