"""The benchmark of exports' accuracy."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from benchmarks import export_accuracy, export_step
from sat_jax import Tagger

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_an_export_beside_its_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(export_step, "EXPORTS", (("onnx", "float32"),))
    table, sounds = tmp_path / "table.csv", tmp_path / "sounds"
    sounds.mkdir()
    (sounds / "notes.txt").write_text("no sound")
    rows = ["name,classes"]
    for name, classes in (
        ("fire.flac", "Fire;Crackle"),
        ("rain.flac", "Rain"),
        ("dog.flac", "Fire"),
    ):
        shutil.copy(EXAMPLES / name, sounds)
        rows.append(f"{name},{classes}")
    table.write_text("\n".join(rows) + "\n")
    flags = [
        "--clips",
        str(table),
        "--columns",
        "name,classes",
        "--json",
        str(tmp_path / "all.json"),
    ]
    export_accuracy.main([str(sounds), *flags])
    report = json.loads((tmp_path / "all.json").read_text())
    model, exported = report["rows"]
    assert report["recordings"] == report["clips"] == 3
    assert exported["same_top"] == 1.0 and exported["largest_difference"] < 2e-5
    labels = Tagger.load("SAT_XS_2s").labels
    assert set(labels) >= {"Fire", "Crackle", "Rain"}
    assert model["own_class"] == exported["own_class"] >= 2 / 3
    assert "onnx float32" in capsys.readouterr().out


def test_numbers_by_hand() -> None:
    model = {"a": np.array([[0.9, 0.1, 0.0], [0.2, 0.3, 0.6]]), "b": np.array([[0.5, 0.4, 0.9]])}
    found = {"a": np.array([[0.8, 0.1, 0.0], [0.2, 0.7, 0.6]]), "b": np.array([[0.5, 0.4, 0.9]])}
    assert export_accuracy.compare(found, model) == pytest.approx(
        {"same_top": 2 / 3, "mean_difference": 0.5 / 9, "largest_difference": 0.4}
    )
    # Means of "a": 0.55, 0.2 and 0.3; class 2 of "b" is in no clip.
    clips = {"a": frozenset({1}), "b": frozenset({0, 1})}
    assert export_accuracy.own_class(model, clips) == 0.5
    assert export_accuracy.own_class(model, {}) is None
