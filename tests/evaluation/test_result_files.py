"""Files of results: later runs replace those of earlier ones."""

import dataclasses
import json

import numpy as np
import pytest

from sat_jax.errors import SatError
from sat_jax.evaluation.modes import Mode
from sat_jax.evaluation.result_files import check_results, class_plot_name, save_evaluations
from sat_jax.evaluation.results import Evaluation
from sat_jax.metrics.ranking import compute_metrics


def make_evaluation(model, delay):
    scores = np.random.default_rng(0).random((6, 2))
    return Evaluation(
        model=model,
        weights="",
        labels=("a", "b"),
        mode=Mode(delay=delay),
        metrics=compute_metrics(scores > 0.5, scores),
        threshold=0.5,
        stability=None,
        strong=None,
        missing=(),
        cost=None,
        clips_per_second=None,
    )


def draw(folder):
    """Writes files in place of the plots of the results in a folder."""
    for each in json.loads((folder / "metrics.json").read_text()):
        (folder / "plots" / class_plot_name(each["name"])).write_text(each["name"])


def files_in(folder):
    return sorted(path.name for path in folder.iterdir())


def test_files_of_other_models_and_delays_are_removed(tmp_path):
    check_results(tmp_path, plots=True)
    save_evaluations(tmp_path, [make_evaluation("one", 2.0), make_evaluation("two", 2.0)])
    draw(tmp_path)
    own = ["per_class/notes.csv", "plots/class_ap_mine.png", "per_class/one_1_s_stream.csv"]
    for name in own:
        (tmp_path / name).touch()
    save_evaluations(tmp_path, [make_evaluation("two", 2.0), make_evaluation("two", 1.0)])
    draw(tmp_path)
    names = ["two_1_s_stream", "two_2_s_stream"]
    assert files_in(tmp_path / "per_class") == sorted(
        ["notes.csv", "one_1_s_stream.csv", *(f"{name}.csv" for name in names)]
    )
    assert files_in(tmp_path / "plots") == sorted(
        ["class_ap_mine.png", *map(class_plot_name, names)]
    )


@pytest.mark.parametrize(
    "text", ["", "[", "[" * 100_000, "{}", "[1]", '[{"name": 1}]', '[{"name": "../../outside"}]']
)
def test_another_program_s_metrics_json_removes_no_file(tmp_path, text):
    work = tmp_path / "deep" / "work"
    check_results(work, plots=True)
    (tmp_path / "deep" / "outside.csv").touch()
    (work / "metrics.json").write_text(text)
    save_evaluations(work, [make_evaluation("one", 2.0)])
    assert (tmp_path / "deep" / "outside.csv").exists()
    [written] = json.loads((work / "metrics.json").read_text())
    assert (work / "per_class" / f"{written['name']}.csv").exists()


@pytest.mark.parametrize("name", ["metrics.json", "table.md", "missing_clips.csv"])
def test_files_that_are_folders(tmp_path, name):
    (tmp_path / name).mkdir()
    with pytest.raises(SatError, match=name):
        check_results(tmp_path, plots=False)


@pytest.mark.parametrize("name", ["scores", "per_class", "plots"])
def test_folders_that_are_files(tmp_path, name):
    (tmp_path / name).touch()
    with pytest.raises(SatError, match=name):
        check_results(tmp_path, plots=True)


def test_checking_changes_no_results(tmp_path):
    check_results(tmp_path, plots=False)
    save_evaluations(tmp_path, [make_evaluation("one", 2.0)])
    before = (tmp_path / "metrics.json").read_bytes()
    check_results(tmp_path, plots=False)
    assert (tmp_path / "metrics.json").read_bytes() == before
    assert files_in(tmp_path) == sorted(
        ["metrics.json", "missing_clips.csv", "per_class", "scores", "table.md"]
    )


def test_two_evaluations_never_share_a_file(tmp_path):
    check_results(tmp_path, plots=False)
    alike = make_evaluation("a b", 2.0)
    save_evaluations(tmp_path, [alike, dataclasses.replace(alike, model="a_b")])
    assert len(files_in(tmp_path / "per_class")) == 2
