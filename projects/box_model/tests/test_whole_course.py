"""The whole course by its command, on a tiny dataset."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from projects.box_model.tests.scenes.made_up import build_dataset

ROOT = Path(__file__).parents[3]
COUNTS = {"train": 8, "solo": 8, "validation": 4, "test": 12}


def run(module, *arguments):
    command = [sys.executable, "-m", module, *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


@pytest.mark.slow
def test_the_course_runs_once(tmp_path):
    pytest.importorskip("tensorflow_datasets")
    tfds_dir = tmp_path / "tfds"
    build_dataset(tfds_dir, COUNTS)
    work = tmp_path / "work"
    few = ("--config.num_steps=2", "--config.data.batch_size=2", "--config.evaluate_every=2")
    course = (
        f"--tfds_dir={tfds_dir}",
        f"--workdir={work}",
        "--seeds=0",
        "--teacher=none",
        "--",
        *few,
    )
    done = run("projects.box_model.course", *course)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("$ python") == 2 * 2 + 2 + 2 * 2 + 2 * 5 + 1
    text = (work / "results.md").read_text()
    assert done.stdout.endswith(text + "\n")
    rows = {tuple(cell.strip() for cell in line.split("|")[1:5]) for line in text.splitlines()}
    names = [("no_memory_XS", "chunks"), ("SAT_XS", "chunks"), ("SAT_XS", "stream")]
    settings = {(f"{name}_{s}s", mode, str(s), "1") for s in (1, 2) for name, mode in names}
    settings |= {("windows", "chunks", str(s), "1") for s in (1, 2)}
    assert settings <= rows
    kinds = json.loads((work / "seed0" / "memory.json").read_text())
    measured = {(one["model"], one["mode"], f"{one['delay']:g}", "1") for one in kinds}
    assert measured == settings
    # Six random scenes have too few such chunks of 2 s.
    assert all(one["continuing"]["classes"] for one in kinds if one["scenes"] == "related")
    for stage in (
        "labels",
        "mae",
        "windows",
        "SAT_XS_2s",
        "no_memory_XS_1s",
        "measuring",
    ):
        assert f"| {stage} | " in text
    assert "still run" not in text

    again = run("projects.box_model.course", *course)
    assert (again.returncode, again.stderr) == (0, "")
    assert again.stdout == text + "\n"

    [table] = tfds_dir.glob("pkg_audio/*/strong_train.tsv")
    table.write_text(table.read_text().replace("Moo", "Speech"))
    other = run("projects.box_model.course", *course)
    assert (other.returncode, other.stderr.count("\n")) == (1, 1), other.stderr
    assert "not the dataset" in other.stderr and "--workdir" in other.stderr
