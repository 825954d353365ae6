"""Making scenes, and the whole course of training on them, as commands on a tiny data set."""

import json
import subprocess
import sys

import numpy as np
import pytest

from projects.box_model.scenes.sounds import SPLITS, Sound

pytest.importorskip("tensorflow_datasets")

COUNTS = {"train": 8, "validation": 4, "test": 12}
HERTZ = {"Moo": 500.0, "Piano": 2000.0, "Speech": 6000.0}


def read_tone(sound):
    seconds = np.arange(40_000) / 16_000
    return np.sin(2 * np.pi * HERTZ[sound.label] * seconds).astype(np.float32)


@pytest.fixture
def tfds_dir(tmp_path):
    from data_pipeline.sources.tfds.building import prepare
    from projects.box_model.scenes.builder import PkgAudio

    sounds = [Sound(f"{label}/{i}", (label,), f"{label}/{i}") for label in HERTZ for i in range(3)]
    every = dict.fromkeys(SPLITS, sounds)
    prepare(PkgAudio(sounds=every, read=read_tone, counts=COUNTS, data_dir=tmp_path / "tfds"))
    return tmp_path / "tfds"


def run(module, *arguments):
    command = [sys.executable, "-m", module, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def test_where_scenes_go_is_looked_at_before_anything_is_fetched(tfds_dir, tmp_path):
    counts = [f"--num_{split}={count}" for split, count in COUNTS.items()]
    packages = tmp_path / "packages"
    for data_dir, last, code, words in (
        (tfds_dir, "--workers=1", 0, "is there already: 8 scenes in train, 4 scenes in validation"),
        (tfds_dir, "--num_test=7", 1, "12 scenes in test: remove it to build it again"),
        (tmp_path / "file", "--workers=1", 1, "cannot write"),
    ):
        (tmp_path / "file").touch()
        arguments = (f"--packages={packages}", f"--data_dir={data_dir}", *counts, last)
        done = run("projects.box_model.scenes", *arguments)
        told = done.stderr if code else done.stdout
        assert (done.returncode, told.count("\n")) == (code, 1), done
        assert words in told
    assert not packages.exists()


@pytest.mark.slow
def test_the_course_runs_through_once(tfds_dir, tmp_path):
    work = tmp_path / "work"
    few = ("--config.num_steps=2", "--config.data.batch_size=2", "--config.evaluate_every=2")
    course = (f"--tfds_dir={tfds_dir}", f"--workdir={work}", "--seeds=0", "--", *few)
    done = run("projects.box_model.course", *course)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("$ python") == 2 + 1 + 3 + 2 * 2 + 6 + 1
    text = (work / "results.md").read_text()
    assert done.stdout.endswith(text + "\n")
    rows = {tuple(cell.strip() for cell in line.split("|")[1:5]) for line in text.splitlines()}
    alone = [("no_memory_XS", "chunks"), ("SAT_XS", "chunks"), ("SAT_XS", "stream")]
    ways = {(f"{name}_{s}s", mode, str(s), "1") for s in (1, 2) for name, mode in alone}
    clip_models = ("vit", "vit_longer")
    modes = ("chunks", "sliding")
    ways |= {(name, m, str(s), "1") for s in (1, 2) for name in clip_models for m in modes}
    assert ways | {(name, "clip", "all", "1") for name in clip_models} <= rows
    kinds = json.loads((work / "seed0" / "memory.json").read_text())
    heard = {(one["model"], one["mode"], f"{one['delay']:g}", "1") for one in kinds}
    assert heard == {way for way in ways if way[1] != "sliding"}
    assert all(one["continuing"]["classes"] for one in kinds)
    for stage in (
        "labels",
        "mae",
        "sounds",
        "vit",
        "vit_longer",
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
    assert "now it is the data set" in other.stderr and "give another --workdir" in other.stderr
