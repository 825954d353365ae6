"""The tables and the plot of a course."""

import json
import statistics

import numpy as np
import pytest

from projects.box_model import results as results_module
from projects.box_model.class_table import class_results
from projects.box_model.measured import best_seed
from projects.box_model.results import write_results
from projects.box_model.scenes.sounds import all_sounds, class_indices
from projects.box_model.tests.made_up_course import LABELS, MEASURES, PRECISIONS, write_course
from sat_jax.errors import SatError

BAD_RESULT = {"name": "a", "mode": "chunks", "delay": 2.0, "mAP": 0.1} | MEASURES
BAD_MEMORY = {
    **dict.fromkeys(("model", "mode", "scenes"), "a"),
    "delay": 1.0,
    **{key: {} for key in ("whole", "continuing", "new")},
}


@pytest.fixture
def work(tmp_path):
    write_course(tmp_path)
    return tmp_path


def cells_of(text, *begin):
    """Returns the further cells of all table rows that begin with `begin`."""
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]
    return [row[len(begin) :] for row in rows if row[: len(begin)] == list(begin)]


def test_tables_have_mean_and_range_over_seeds(work):
    text = write_results(work)
    assert text == (work / "results.md").read_text()
    rows = cells_of(text, "SAT_XS_2s", "stream", "2", "2")
    measures, recordings, related, unrelated, sources = rows
    assert measures == [
        *("0.375 (0.25 to 0.5)", "0.5 (0.5 to 0.5)", "0.125 (0.125 to 0.125)"),
        *("-", "0.01 (0.01 to 0.01)"),
    ]
    assert recordings == ["0.5 (0.375 to 0.625)", "0.5 (0.5 to 0.5)"]
    assert related == ["0.75 (0.75 to 0.75)", "9", "0.175 (0.05 to 0.3)", "3", "-", "0"]
    assert unrelated == related
    assert sources[1::2] == ["2", "3", "5"]
    for name, other, gains in (
        ("SAT_XS_2s", "windows", ["+0.150", "-1.438 to +1.738", "+0.025", "+0.275"]),
        ("SAT_XS_2s", "no_memory_XS_2s", ["+0.175", "-1.413 to +1.763", "+0.050", "+0.300"]),
        ("SAT_XS_1s", "windows", ["+0.160", "-1.428 to +1.748", "+0.035", "+0.285"]),
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
    assert cells_of(text, "windows", "60") == [["100"]]
    assert "2 of windows" in text
    assert (work / "results.png").stat().st_size > 10_000


def test_the_plot_has_means_and_ranges_over_seeds(work, monkeypatch):
    drawn = []
    monkeypatch.setattr(results_module, "plot_map_by_delay", lambda *parts: drawn.append(parts))
    write_results(work)
    [(path, curves)] = drawn
    assert path == work / "results.png"
    found = {(curve.model, curve.mode): curve for curve in curves}
    names = {("windows", "chunks"), ("no_memory_XS", "chunks")}
    assert set(found) == names | {("SAT_XS", "stream")}
    sat = found["SAT_XS", "stream"]
    points = sorted(zip(sat.delays, sat.mean_average_precision, sat.ranges, strict=True))
    np.testing.assert_allclose([point[:2] for point in points], [[1, 0.385], [2, 0.375]])
    np.testing.assert_allclose([point[2] for point in points], [[0.26, 0.51], [0.25, 0.5]])


def test_missing_measures_are_left_out(work):
    for path in work.glob("seed*/measured/windows/metrics.json"):
        results = json.loads(path.read_text())
        path.write_text(json.dumps([result | {"strong": None} for result in results]))
    for path in work.glob("seed*/memory.json"):
        path.unlink()
    text = write_results(work)
    assert not cells_of(text, "SAT_XS_2s", "windows in chunks", "segment mAP")
    assert cells_of(text, "SAT_XS_2s", "no_memory_XS_2s in chunks", "segment mAP")
    assert "(continuing)" not in text


def test_kinds_of_classes(work):
    """By brute force from all sounds, and by the number of scenes."""
    played, reached = set(), set()
    for sound in all_sounds():
        if sound.name.startswith("soundfont/") and sound.split == "test":
            played.add(sound.label)
            reached |= {LABELS[index] for index in class_indices(sound.labels)}
    values = {
        "played": [value for label, (_, value) in PRECISIONS.items() if label in played],
        "recorded": [value for label, (_, value) in PRECISIONS.items() if label not in reached],
    }
    assert [len(some) for some in values.values()] == [2, 3]  # Music, a parent of Piano, is neither
    values["common"] = [value for count, value in PRECISIONS.values() if count >= 8]
    *_, cells = cells_of(write_results(work), "SAT_XS_2s", "stream", "2", "2")
    for cell, some in zip(cells[::2], values.values(), strict=True):
        assert float(cell.split()[0]) == pytest.approx(statistics.mean(some), rel=0.005)


def test_results_by_class_of_the_best_seed(work):
    assert best_seed(work, "SAT_XS_2s") == (2, 0.6)
    text = class_results(work, "SAT_XS_2s")
    assert "Seed 2 " in text and "(0.600)" in text
    assert cells_of(text, "mAP, 6 classes") == [["0.250"]]
    assert cells_of(text, "mAP of the 2 that the soundfont plays") == [["0.800"]]
    assert cells_of(text, "0.70 to 1.00") == [["3", "Music 1.00; Piano 0.90; Trumpet 0.70"]]
    assert cells_of(text, "0.30 to 0.50") == [["1", "Moo 0.30"]]
    assert cells_of(text, "0.00 to 0.10") == [["1", "Helicopter 0.05"]]
    assert "Sneeze" not in text  # In seven scenes only.


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("seed2/measured/windows/metrics.json", "[3]"),
        ("seed2/measured/windows/metrics.json", '[{"name": "a"}]'),
        ("seed2/measured/windows/metrics.json", "{}"),
        ("seed2/measured/windows/metrics.json", json.dumps([BAD_RESULT | {"mAP": "x"}])),
        ("seed2/measured/windows/metrics.json", json.dumps([BAD_RESULT | {"strong": 3}])),
        ("seed2/memory.json", json.dumps([BAD_MEMORY | {"new": 3}])),
        ("seed2/memory.json", '[{"model": "x"}]'),
        ("seed2/SAT_XS_2s/log.jsonl", "3\n"),
        ("stages.json", '{"a": {}}'),
        ("stages.json", '{"a": 3}'),
    ],
)
def test_damaged_files_are_named(work, file, content):
    (work / file).write_text(content)
    with pytest.raises(SatError, match=file):
        write_results(work)


def test_a_log_may_have_no_validation(work):
    with (work / "seed2" / "SAT_XS_2s" / "log.jsonl").open("a") as file:
        file.write('{"step": 3, "validation": null}\n')
    assert best_seed(work, "SAT_XS_2s") == (2, 0.6)


def test_a_model_without_stream_results_is_refused(work):
    path = work / "seed2" / "measured" / "SAT_XS_2s" / "metrics.json"
    path.write_text("[]")
    with pytest.raises(SatError, match=r"seed2.*SAT_XS_2s/metrics\.json"):
        class_results(work, "SAT_XS_2s")


@pytest.mark.parametrize(
    "content", ["", "index,label,positives,average_precision\n0,Speech,4,0.5\n"]
)
def test_truncated_class_tables_are_named(work, content):
    folder = work / "seed2" / "measured" / "SAT_XS_2s"
    (folder / "per_class" / "SAT_XS_2s_stream_2.0.csv").write_text(content)
    with pytest.raises(SatError, match=r"stream_2\.0\.csv"):
        class_results(work, "SAT_XS_2s")


def test_unfinished_runs_are_left_out(work):
    run = work / "seed11" / "SAT_XS_2s"
    run.mkdir(parents=True)
    logged = {"step": 1, "validation": {"mAP": 0.9}}
    (run / "log.jsonl").write_text(json.dumps(logged) + '\n{"step": 2, "va')
    assert "0.900" not in write_results(work)
    with pytest.raises(SatError, match="seed11"):
        best_seed(work, "SAT_XS_2s")
