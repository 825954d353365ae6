"""Choosing among classes: accuracy, confusions, and what is refused."""

import json
import types
from pathlib import Path

import numpy as np
import pytest
import soundfile

from data_pipeline.sources.clips import Clip
from projects.box_model.choose_class import PROGRAM, choose, summarize
from tests.support.programs import run_program


def test_accuracy_is_counted_by_class():
    truth = ["dog", "dog", "rain", "rain", "rain"]
    chosen = ["dog", "rain", "rain", "rain", "dog"]
    result = summarize(truth, chosen)
    assert result["accuracy"] == pytest.approx(3 / 5)
    assert result["by_class"] == pytest.approx({"dog": 1 / 2, "rain": 2 / 3})
    assert result["confused"] == {"dog -> rain": 1, "rain -> dog": 1}


def test_a_class_is_chosen_by_the_mean_of_its_strongest_name():
    probs = np.zeros((2, 10), np.float32)
    probs[:, 0] = (0.9, 0.0)
    probs[:, 1] = (0.0, 0.8)  # Another name of the same class: 0.85 together.
    probs[:, 2] = (0.95, 0.7)
    probs[:, 3] = (1.0, 0.6)  # Of no class.
    probs[:, 4:7] = 0.5
    probs[:, 7] = 0.48  # The sixth.
    chunks = [types.SimpleNamespace(probs=row) for row in probs]
    tagger = types.SimpleNamespace(tag_file=lambda path: iter(chunks))
    classes = [(2,), (0, 1), (7,), (8,)]
    for labels, in_top_five in (((2,), True), ((6,), True), ((7,), False), ((7, 4), True)):
        choice = choose(tagger, Clip(Path("a.wav"), labels, "a.wav"), classes)
        assert choice == ((0, 1), in_top_five)


@pytest.fixture
def table(tmp_path):
    for name in "ab":
        soundfile.write(tmp_path / f"{name}.wav", np.zeros(16_000), 16_000)
    return tmp_path / "table.csv"


def run(*arguments):
    return run_program(PROGRAM, "choose_class", *arguments)


def test_the_output_has_the_accuracy_of_the_chosen_rows(table, tmp_path):
    table.write_text("file,labels,fold\na.wav,Dog,1\nb.wav,Silence,2\n")
    output = tmp_path / "out.json"
    flags = [f"--clips={table}", "--where=fold=2", f"--output={output}"]
    assert run("-m", "SAT_XS_2s", *flags) == 0
    result = json.loads(output.read_text())
    assert list(result["by_class"]) == ["Silence"]
    assert result["accuracy"] == result["by_class"]["Silence"] in (0.0, 1.0)


def test_a_clip_without_a_class_is_named(table, tmp_path, capsys):
    table.write_text("file,labels\na.wav,Dog\nb.wav,\n")
    assert run("-m", "SAT_XS_2s", f"--clips={table}", f"--output={tmp_path}/out.json") == 1
    [line] = capsys.readouterr().err.splitlines()
    assert "b.wav" in line and str(table) in line


@pytest.mark.parametrize(
    ("arguments", "code", "named"),
    [
        (["-m", "x"], 2, "--clips"),
        (["-m", "x", "--clips=c", "--output=o"], 1, "x"),
    ],
)
def test_wrong_arguments(arguments, code, named, capsys):
    assert run(*arguments) == code
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("choose_class: ") and named in line
