"""What is told of a course of training: tables of all seeds, and of the model in the box."""

import csv
import json
import statistics

import jax
import numpy as np
import pytest

from data_pipeline.pkg_audio.sounds import all_sounds, class_indices
from recipes import bundle as bundle_module
from recipes.bundle import bundle_best
from recipes.pkg_audio_classes import class_results
from recipes.pkg_audio_measured import best_seed
from recipes.pkg_audio_results import write_results
from recipes.stage_log import StageLog
from sat_jax.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from sat_jax.errors import SatError
from sat_jax.labels import audioset_labels, default_label_names
from sat_jax.models.registry import model_config
from sat_jax.warm_start import fresh_variables

LABELS = [label.name for label in audioset_labels()]
MEASURES = {
    "lwlrap": 0.5,
    "classes": 527,
    "classes_without_positives": 521,
    "clips_scored": 800,
    "strong": {"segment_mAP": 0.125, "onset_delay_median": None},
    "stability": {"mean_squared_change": 0.01},
}
PRECISIONS = {
    "Piano": (20, 0.9),
    "Trumpet": (8, 0.7),
    "Moo": (9, 0.3),
    "Helicopter": (10, 0.05),
    "Music": (300, 1.0),
    "Sneeze": (7, 0.8),
}
"""In how many scenes a class is, and how well it is found."""


def write_class_table(path, precisions):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["index", "label", "positives", "average_precision", "roc_auc"])
        for index, label in enumerate(LABELS):
            table.writerow([index, label, *precisions.get(label, (0, "")), ""])


def write_seed(work, seed, gain, validation):
    """A streaming model that is so much better than a clip model, which hears chunks or clips."""
    for model, modes in (
        ("SAT_XS_2s", {"stream": 2.0}),
        ("vit", {"chunks": 2.0, "clip": None}),
        ("no_memory_XS_2s", {"chunks": 2.0}),
    ):
        folder, results = work / f"seed{seed}" / "measured" / model, []
        for mode, delay in modes.items():
            name = f"{model}_{mode}"
            value = 0.2 + (gain if mode == "stream" else 0.0)
            results.append({"name": name, "mode": mode, "delay": delay, "mAP": value} | MEASURES)
            write_class_table(folder / "per_class" / f"{name}.csv", PRECISIONS)
        (folder / "metrics.json").write_text(json.dumps(results))
    run = work / f"seed{seed}" / "SAT_XS_2s"
    (run / "model").mkdir(parents=True)
    lines = [{"step": 1, "loss": 0.1}, *({"validation": {"mAP": value}} for value in validation)]
    (run / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (work / f"seed{seed}" / "mae").mkdir()
    told = {"step": 1, "validation": {"validation_loss": 0.9}}
    (work / f"seed{seed}" / "mae" / "log.jsonl").write_text(json.dumps(told))
    kinds = {
        "continuing": {"classes": 3, "mAP": gain},
        "new": {"classes": 0, "mAP": None},
    }
    memory = {"model": "SAT_XS_2s", "mode": "stream", "delay": 2.0} | kinds
    (work / f"seed{seed}" / "memory.json").write_text(json.dumps([memory]))
    log, result = StageLog(work), work / f"seed{seed}" / "vit" / "model"
    log.begin("vit", result, ["train.py"])
    log.end(result, 30.2, 50.0)
    log.begin("vit", result, ["train.py"])  # Killed.


@pytest.fixture
def work(tmp_path):
    """The course of two seeds: the second is better in the test, the first on validation scenes."""
    write_seed(tmp_path, 2, gain=0.05, validation=[0.4, 0.6])
    write_seed(tmp_path, 10, gain=0.3, validation=[0.5, 0.3])
    return tmp_path


def cells_of(text, *begin):
    """The other cells of the rows of tables that begin so."""
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]
    return [row[len(begin) :] for row in rows if row[: len(begin)] == list(begin)]


def test_mean_and_spread_over_seeds_are_told(work):
    text = write_results(work)
    assert text == (work / "results.md").read_text()
    measures, kinds, sources = cells_of(text, "SAT_XS_2s", "stream", "2", "2")
    assert measures == [
        *("0.375 (0.25 to 0.5)", "0.5 (0.5 to 0.5)", "0.125 (0.125 to 0.125)"),
        *("-", "0.01 (0.01 to 0.01)"),
    ]
    assert kinds == ["0.175 (0.05 to 0.3)", "3", "-", "0"]
    assert sources[1::2] == ["2", "3"]
    assert cells_of(text, "vit", "clip", "all", "2")[0][0] == "0.2 (0.2 to 0.2)"
    for other in ("vit", "no_memory_XS_2s"):
        gain = ("SAT_XS_2s", f"{other} in chunks")
        assert cells_of(text, *gain, "mAP") == [["+0.175", "+0.050", "+0.300"]]
        assert cells_of(text, *gain, "segment mAP") == [["+0.000"] * 3]
    assert cells_of(text, "gain of")[0][-2:] == ["seed 2", "seed 10"]
    assert cells_of(text, "model")[-1] == ["seed 2", "seed 10"]
    assert cells_of(text, "SAT_XS_2s", "0.600") == [["0.500"]]
    assert cells_of(text, "vit", "60") == [["100"]]
    assert "were killed, or still run: 2 of vit.)" in text
    assert (work / "results.png").stat().st_size > 10_000


def test_what_was_not_measured_is_left_out(work):
    for path in work.glob("seed*/measured/vit/metrics.json"):
        results = json.loads(path.read_text())
        path.write_text(json.dumps([result | {"strong": None} for result in results]))
    for path in work.glob("seed*/memory.json"):
        path.unlink()
    text = write_results(work)
    assert not cells_of(text, "SAT_XS_2s", "vit in chunks", "segment mAP")
    assert cells_of(text, "SAT_XS_2s", "no_memory_XS_2s in chunks", "segment mAP")
    assert "(continuing)" not in text


def test_classes_are_told_apart_by_where_their_sounds_come_from(work):
    """By brute force, from all sounds that there are."""
    played, reached = set(), set()
    for sound in all_sounds():
        if sound.name.startswith("soundfont/") and sound.split == "test":
            played.add(sound.label)
            reached |= {LABELS[index] for index in class_indices(sound.labels)}
    values = {
        "played": [value for label, (_, value) in PRECISIONS.items() if label in played],
        "recorded": [value for label, (_, value) in PRECISIONS.items() if label not in reached],
    }
    assert [len(some) for some in values.values()] == [2, 3], "Music is above Piano, and neither"
    _, _, (of_played, _, of_recorded, _) = cells_of(
        write_results(work), "SAT_XS_2s", "stream", "2", "2"
    )
    for told, some in ((of_played, values["played"]), (of_recorded, values["recorded"])):
        assert float(told.split()[0]) == pytest.approx(statistics.mean(some), rel=0.005)


def test_the_model_in_the_box_is_told_of_class_by_class(work):
    assert best_seed(work, "SAT_XS_2s") == (2, 0.6)
    text = class_results(work, "SAT_XS_2s")
    assert "Of seed 2, " in text and "(0.600)" in text
    assert cells_of(text, "mAP, 6 classes") == [["0.250"]]
    assert cells_of(text, "mAP of the 2 that the soundfont plays there") == [["0.800"]]
    assert cells_of(text, "0.70 to 1.00") == [["3", "Music 1.00; Piano 0.90; Trumpet 0.70"]]
    assert cells_of(text, "0.30 to 0.50") == [["1", "Moo 0.30"]]
    assert cells_of(text, "0.00 to 0.10") == [["1", "Helicopter 0.05"]]
    assert "Sneeze" not in text, "in seven scenes only"


@pytest.fixture
def box(tmp_path, monkeypatch):
    """A package whose box is empty, and its docs."""
    monkeypatch.setattr(bundle_module, "BUNDLED", tmp_path / "box" / "models")
    monkeypatch.setattr(bundle_module, "DOCS", tmp_path / "box" / "docs")
    return tmp_path / "box"


def save_model(folder, seed):
    config = model_config("SAT_XS_2s")
    variables = jax.jit(fresh_variables, static_argnums=0)(config, jax.random.key(seed))
    labels = default_label_names(config.num_classes)
    save_checkpoint(folder, Checkpoint(config=config, variables=variables, labels=labels))
    return np.asarray(variables["params"]["head"]["kernel"])


def test_the_best_on_validation_scenes_gets_into_the_box(work, box):
    (work / "seed2" / "SAT_XS_2s" / "model").rmdir()
    kernel = save_model(work / "seed2" / "SAT_XS_2s" / "model", seed=3)
    for _ in range(2):  # The second takes the first one's place.
        folder = bundle_best(work, "SAT_XS_2s")
    assert folder == box / "models" / "SAT_XS_2s"
    found = load_checkpoint(folder).variables["params"]["head"]["kernel"]
    np.testing.assert_allclose(found, kernel, rtol=2**-8, atol=1e-30)
    assert (box / "docs" / "pkg_audio_results.md").read_text() == write_results(work)
    assert (box / "docs" / "pkg_audio_results.png").stat().st_size > 10_000
    told = box / "models" / "SAT_XS_2s.results.md"
    assert told.read_text() == class_results(work, "SAT_XS_2s")
    names = {path.name for path in box.glob("*/*")}
    assert names == {told.name, folder.name, "pkg_audio_results.md", "pkg_audio_results.png"}


def test_the_box_stays_as_it_is_where_something_is_missing(work, box):
    (work / "seed2" / "measured" / "SAT_XS_2s" / "metrics.json").unlink()
    with pytest.raises(SatError, match="seed2 is not through"):
        bundle_best(work, "SAT_XS_2s")
    with pytest.raises(SatError, match="has no SAT_XS_1s: give the --workdir"):
        bundle_best(work, "SAT_XS_1s")
    with pytest.raises(SatError, match="has no results: give the --workdir"):
        write_results(work / "seed2")
    assert not box.exists()


def test_results_that_cannot_be_written_change_nothing(work, box):
    (box / "docs" / "pkg_audio_results.md").mkdir(parents=True)
    with pytest.raises(SatError, match="it is a folder"):
        bundle_best(work, "SAT_XS_2s")
    assert not list(box.glob("models/*"))


@pytest.mark.parametrize(
    "content", ["", "index,label,positives,average_precision\n0,Speech,4,0.5\n"]
)
def test_cut_tables_of_classes_are_told(work, content):
    folder = work / "seed2" / "measured" / "SAT_XS_2s"
    (folder / "per_class" / "SAT_XS_2s_stream.csv").write_text(content)
    with pytest.raises(
        SatError, match=r"stream\.csv is missing or damaged: remove .*SAT_XS_2s, and"
    ):
        class_results(work, "SAT_XS_2s")


def test_runs_that_still_learn_are_not_told_of(work):
    run = work / "seed11" / "SAT_XS_2s"
    run.mkdir(parents=True)
    told = {"step": 1, "validation": {"mAP": 0.9}}
    (run / "log.jsonl").write_text(json.dumps(told) + '\n{"step": 2, "va')
    assert best_seed(work, "SAT_XS_2s") == (2, 0.6)
    (run / "model").mkdir()
    with pytest.raises(SatError, match="seed11 is not through"):
        best_seed(work, "SAT_XS_2s")
