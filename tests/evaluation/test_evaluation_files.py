"""Results of evaluations as files: a later run leaves nothing of an earlier one beside its own."""

import dataclasses
import json

import numpy as np
import pytest

from sat_jax.errors import SatError
from sat_jax.evaluation.result_files import check_results, class_picture, save_evaluations
from sat_jax.evaluation.results import Evaluation
from sat_jax.evaluation.scoring import progress_line
from sat_jax.metrics.ranking import compute_metrics


def make_evaluation(model, delay):
    scores = np.random.default_rng(0).random((6, 2))
    return Evaluation(
        model=model,
        weights="",
        labels=("a", "b"),
        mode="stream",
        delay=delay,
        framing="chunk",
        warmup="silence",
        buffer=None,
        aggregation="mean",
        metrics=compute_metrics(scores > 0.5, scores),
        threshold=0.5,
        stability=None,
        strong=None,
        missing=(),
        cost=None,
        clips_per_second=None,
    )


def draw(folder):
    """What stands for the pictures of the results in a folder."""
    for each in json.loads((folder / "metrics.json").read_text()):
        (folder / "plots" / class_picture(each["name"])).write_text(each["name"])


def files_in(folder):
    return sorted(path.name for path in folder.iterdir())


def test_files_of_other_models_and_delays_go(tmp_path):
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
    assert files_in(tmp_path / "plots") == sorted(["class_ap_mine.png", *map(class_picture, names)])


@pytest.mark.parametrize(
    "text", ["", "[", "[" * 100_000, "{}", "[1]", '[{"name": 1}]', '[{"name": "../../outside"}]']
)
def test_results_that_are_not_ours_name_nothing(tmp_path, text):
    work = tmp_path / "deep" / "work"
    check_results(work, plots=True)
    (tmp_path / "deep" / "outside.csv").touch()
    (work / "metrics.json").write_text(text)
    save_evaluations(work, [make_evaluation("one", 2.0)])
    assert (tmp_path / "deep" / "outside.csv").exists()
    [written] = json.loads((work / "metrics.json").read_text())
    assert (work / "per_class" / f"{written['name']}.csv").exists()


@pytest.mark.parametrize("name", ["metrics.json", "table.md", "missing_clips.csv"])
def test_places_that_are_taken(tmp_path, name):
    (tmp_path / name).mkdir()
    with pytest.raises(SatError, match=f"{name}: it is a folder"):
        check_results(tmp_path, plots=False)


@pytest.mark.parametrize("name", ["scores", "per_class", "plots"])
def test_folders_that_are_files(tmp_path, name):
    (tmp_path / name).touch()
    with pytest.raises(SatError, match=f"cannot write .*{name}"):
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


@pytest.mark.parametrize(
    ("done", "rate", "text"),
    [
        (3, 0.0277, "3 of 20 clips, 0.0277 clips/s, 10 min left"),
        (3, 0.001, "3 of 20 clips, 0.001 clips/s, 4.7 h left"),
        (18, 0.1, "18 of 20 clips, 0.1 clips/s, 20 s left"),
        (19, 99.0, "19 of 20 clips, 99 clips/s, 1 s left"),
        (20, 0.0277, "20 of 20 clips, 0.0277 clips/s"),
    ],
)
def test_progress(done, rate, text):
    assert progress_line(done, 20, rate) == text
