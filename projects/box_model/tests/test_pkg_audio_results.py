"""What is told of a course of training: tables of all seeds, and of the model in the box."""

import csv
import json
import statistics

import jax
import numpy as np
import pytest

from projects.box_model import bundle as bundle_module
from projects.box_model import results as results_module
from projects.box_model.bundle import bundle_best
from projects.box_model.class_table import class_results
from projects.box_model.measured import best_seed
from projects.box_model.results import write_results
from projects.box_model.scenes.sounds import all_sounds, class_indices
from projects.box_model.stage_log import StageLog
from sat_jax.errors import SatError
from sat_jax.labels import audioset_labels, default_label_names
from sat_jax.models.registry import model_config
from sat_jax.weights.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from sat_jax.weights.warm_start import fresh_variables

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


ODD_RESULT = {"name": "a", "mode": "clip", "delay": None, "mAP": 0.1} | MEASURES
ODD_MEMORY = {"model": "a", "mode": "stream", "delay": 1.0, "continuing": {}, "new": {}}
"""What is whole but for a field that a test puts in."""


def write_class_table(path, precisions):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["index", "label", "positives", "average_precision", "roc_auc"])
        for index, label in enumerate(LABELS):
            table.writerow([index, label, *precisions.get(label, (0, "")), ""])


def write_model(seed_folder, name, ways, validation):
    """A tagger's run and what was measured of it: ways are modes, delays and mAP."""
    folder, results = seed_folder / "measured" / name, []
    for mode, delay, value in ways:
        result = {"name": f"{name}_{mode}_{delay}", "mode": mode, "delay": delay, "mAP": value}
        results.append(result | MEASURES)
        write_class_table(folder / "per_class" / f"{result['name']}.csv", PRECISIONS)
    (folder / "metrics.json").write_text(json.dumps(results))
    (seed_folder / name / "model").mkdir(parents=True)
    told = [{"step": 1, "loss": 0.1}, *({"validation": {"mAP": value}} for value in validation)]
    log = seed_folder / name / "log.jsonl"
    log.write_text("".join(json.dumps(line) + "\n" for line in told))


def write_seed(work, seed, gain, validation):
    """Streaming models that are so much better than clip models, which hear chunks or clips."""
    folder = work / f"seed{seed}"
    for seconds, more in ((2.0, 0.0), (1.0, 0.01)):
        name = f"XS_{seconds:g}s"
        streams = [("stream", seconds, 0.2 + gain + more)]
        write_model(folder, f"SAT_{name}", streams, validation)
        write_model(folder, f"no_memory_{name}", [("chunks", seconds, 0.2)], [0.1])
    for name, value in (("vit", 0.2), ("vit_longer", 0.225)):
        ways = [("chunks", 2.0, value), ("chunks", 1.0, value), ("clip", None, value)]
        write_model(folder, name, ways, [0.1])
    (folder / "mae").mkdir()
    told = {"step": 1, "validation": {"validation_loss": 0.9}}
    (folder / "mae" / "log.jsonl").write_text(json.dumps(told))
    kinds = {
        "continuing": {"classes": 3, "mAP": gain},
        "new": {"classes": 0, "mAP": None},
    }
    memory = [
        {"model": path.parent.name, "mode": result["mode"], "delay": result["delay"]} | kinds
        for path in sorted(folder.glob("measured/*/metrics.json"))
        for result in json.loads(path.read_text())
        if result["mode"] != "clip"
    ]
    (folder / "memory.json").write_text(json.dumps(memory))
    log, result = StageLog(work), folder / "vit" / "result"
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
    assert sources[1::2] == ["2", "3", "5"]
    assert cells_of(text, "vit", "clip", "all", "2")[0][0] == "0.2 (0.2 to 0.2)"
    for name, other, gains in (
        ("SAT_XS_2s", "vit", ["+0.175", "-1.413 to +1.763", "+0.050", "+0.300"]),
        ("SAT_XS_2s", "vit_longer", ["+0.150", "-1.438 to +1.738", "+0.025", "+0.275"]),
        ("SAT_XS_2s", "no_memory_XS_2s", ["+0.175", "-1.413 to +1.763", "+0.050", "+0.300"]),
        ("SAT_XS_1s", "vit", ["+0.185", "-1.403 to +1.773", "+0.060", "+0.310"]),
        ("SAT_XS_1s", "vit_longer", ["+0.160", "-1.428 to +1.748", "+0.035", "+0.285"]),
        ("SAT_XS_1s", "no_memory_XS_1s", ["+0.185", "-1.403 to +1.773", "+0.060", "+0.310"]),
    ):
        gain, same = (
            (name, f"{other} in chunks"),
            ["+0.000", "+0.000 to +0.000", "+0.000", "+0.000"],
        )
        assert cells_of(text, *gain, "mAP") == [gains]
        assert cells_of(text, *gain, "mAP of common classes") == [same]
        assert cells_of(text, *gain, "segment mAP") == [same]
    assert cells_of(text, "gain of")[0][-2:] == ["seed 2", "seed 10"]
    assert cells_of(text, "model")[-1] == ["seed 2", "seed 10"]
    assert cells_of(text, "SAT_XS_2s", "0.600") == [["0.500"]]
    assert cells_of(text, "vit", "60") == [["100"]]
    assert "were killed, or still run: 2 of vit.)" in text
    assert (work / "results.png").stat().st_size > 10_000


def test_the_picture_has_means_and_ranges_over_seeds(work, monkeypatch):
    drawn = []
    monkeypatch.setattr(results_module, "plot_map_by_delay", lambda *parts: drawn.append(parts))
    write_results(work)
    [(path, curves, levels)] = drawn
    assert path == work / "results.png"
    found = {(curve.model, curve.mode): curve for curve in curves}
    names = {("vit", "chunks"), ("vit_longer", "chunks"), ("no_memory_XS", "chunks")}
    assert set(found) == names | {("SAT_XS", "stream")}
    sat = found["SAT_XS", "stream"]
    points = sorted(zip(sat.delays, sat.mean_average_precision, sat.ranges, strict=True))
    np.testing.assert_allclose([point[:2] for point in points], [[1, 0.385], [2, 0.375]])
    np.testing.assert_allclose([point[2] for point in points], [[0.26, 0.51], [0.25, 0.5]])
    assert {(level.model, level.mode) for level in levels} == {
        ("vit", "clip"),
        ("vit_longer", "clip"),
    }


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
    """By brute force, from all sounds that there are, and by how many scenes have them."""
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
    values["common"] = [value for count, value in PRECISIONS.values() if count >= 8]
    _, _, cells = cells_of(write_results(work), "SAT_XS_2s", "stream", "2", "2")
    for told, some in zip(cells[::2], values.values(), strict=True):
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


@pytest.mark.parametrize(
    "missing",
    [
        "memory.json",
        "vit_longer/model",
        "SAT_XS_1s/model",
        "no_memory_XS_1s/log.jsonl",
        "measured/SAT_XS_2s/metrics.json",
        "measured/vit_longer/metrics.json",
        "measured/no_memory_XS_1s/metrics.json",
    ],
)
@pytest.mark.parametrize("seed", [2, 10])
def test_the_box_stays_as_it_is_where_something_is_missing(work, box, seed, missing):
    path = work / f"seed{seed}" / missing
    path.rename(path.with_name("elsewhere"))
    with pytest.raises(
        SatError, match=f"seed{seed} is not through, .*{missing.split('/')[-2:][0]}"
    ):
        bundle_best(work, "SAT_XS_2s")
    assert not box.exists()


def test_a_folder_without_a_course_is_told(work, box):
    with pytest.raises(SatError, match="has no SAT_T_1s: give the --workdir"):
        bundle_best(work, "SAT_T_1s")
    with pytest.raises(SatError, match="has no results: give the --workdir"):
        write_results(work / "seed2")
    assert not box.exists()


@pytest.mark.parametrize(
    "file", ["memory.json", "measured/vit/metrics.json", "measured/SAT_XS_1s/metrics.json"]
)
def test_the_box_stays_as_it_is_where_a_result_is_missing(work, box, file):
    path = work / "seed10" / file
    path.write_text(json.dumps(json.loads(path.read_text())[1:]))
    with pytest.raises(SatError, match=f"seed10 is not through, .*{file} is missing or not whole"):
        bundle_best(work, "SAT_XS_2s")
    assert not box.exists()


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("seed2/measured/vit/metrics.json", "[3]"),
        ("seed2/measured/vit/metrics.json", '[{"name": "a"}]'),
        ("seed2/measured/vit/metrics.json", "{}"),
        ("seed2/measured/vit/metrics.json", json.dumps([ODD_RESULT | {"mAP": "x"}])),
        ("seed2/measured/vit/metrics.json", json.dumps([ODD_RESULT | {"strong": 3}])),
        ("seed2/memory.json", json.dumps([ODD_MEMORY | {"new": 3}])),
        ("seed2/memory.json", '[{"model": "x"}]'),
        ("seed2/SAT_XS_2s/log.jsonl", "3\n"),
        ("stages.json", '{"a": {}}'),
        ("stages.json", '{"a": 3}'),
    ],
)
def test_files_of_another_form_are_damaged(work, file, content):
    (work / file).write_text(content)
    with pytest.raises(SatError, match=f"{file} is damaged"):
        write_results(work)


def test_a_log_may_say_that_nothing_was_measured(work):
    with (work / "seed2" / "SAT_XS_2s" / "log.jsonl").open("a") as file:
        file.write('{"step": 3, "validation": null}\n')
    assert best_seed(work, "SAT_XS_2s") == (2, 0.6)


def test_a_model_that_was_not_heard_as_a_stream_is_told(work):
    path = work / "seed2" / "measured" / "SAT_XS_2s" / "metrics.json"
    path.write_text("[]")
    with pytest.raises(SatError, match=r"seed2 is not through, .*SAT_XS_2s/metrics\.json"):
        class_results(work, "SAT_XS_2s")


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
    (folder / "per_class" / "SAT_XS_2s_stream_2.0.csv").write_text(content)
    with pytest.raises(
        SatError, match=r"stream_2\.0\.csv is missing or damaged: remove .*SAT_XS_2s, and"
    ):
        class_results(work, "SAT_XS_2s")


def test_runs_that_still_learn_are_not_told_of(work):
    run = work / "seed11" / "SAT_XS_2s"
    run.mkdir(parents=True)
    told = {"step": 1, "validation": {"mAP": 0.9}}
    (run / "log.jsonl").write_text(json.dumps(told) + '\n{"step": 2, "va')
    assert "0.900" not in write_results(work)
    with pytest.raises(SatError, match="seed11 is not through"):
        best_seed(work, "SAT_XS_2s")
