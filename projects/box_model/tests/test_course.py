"""The course: its stages, and what each of them is given."""

import functools
import importlib
import operator
import os
import types
from pathlib import Path

import pytest

from projects.box_model import course, stages
from projects.box_model.dataset_fingerprint import dataset_fingerprint
from sat_jax.errors import SatError
from tests.support.programs import run_program


def set_flags(monkeypatch, size="xs", teacher="mn04"):
    monkeypatch.setattr(course, "_SIZE", types.SimpleNamespace(value=size))
    monkeypatch.setattr(course, "_TEACHER", types.SimpleNamespace(value=teacher))


def test_stages_begin_where_others_end(monkeypatch, tmp_path):
    """The model that each stage starts from, and how compared models differ."""
    made = {}

    def note(work, stage, result, command, inputs):
        flags = dict(flag.split("=", 1) for flag in command if "=" in flag)
        made[os.path.relpath(result, tmp_path / "seed3")] = flags

    monkeypatch.setattr(course, "run_stage", note)
    set_flags(monkeypatch)
    stages_of = course._Course(tmp_path, tmp_path, "", ())
    stages_of.train(3)
    begins = {
        name: str(Path(flags["--init"]).relative_to(tmp_path / "seed3"))
        for name, flags in made.items()
        if "--init" in flags
    }
    streaming = ("SAT_XS_2s", "SAT_XS_1s", "no_memory_XS_2s", "no_memory_XS_1s")
    assert begins == {
        "windows/model": "mae/model",
        "SAT_XS_2s/model": "windows/model",
        "SAT_XS_1s/model": "SAT_XS_2s/model",
        "no_memory_XS_2s/model": "windows/model",
        "no_memory_XS_1s/model": "no_memory_XS_2s/model",
    }
    trained = {name: flags for name, flags in made.items() if name.endswith("model")}
    assert {flags["--config.seed"] for flags in trained.values()} == {"3"}
    valid = "pkg_audio:validation+sounds_validation"
    assert {flags["--valid_tfds"] for flags in trained.values()} == {valid}
    assert made["mae/model"]["--tfds"] == "pkg_audio:solo"
    for name, seconds in (("windows", 2), *((one, one[-2]) for one in streaming)):
        flags = made[f"{name}/model"]
        assert flags["--tfds"] == "pkg_audio:train+solo"
        files = [
            str(tmp_path / f"labels_{split}_{seconds}s.parquet") for split in ("train", "solo")
        ]
        assert flags["--psl"] == ",".join(files)
        assert flags["--config.data.psl_share"] == "1.0"
        for split, file in zip(("train", "solo"), files, strict=True):
            labels = made[f"../{Path(file).name}"]
            assert labels["--tfds"] == f"pkg_audio:{split}"
            assert labels["--strong"].endswith(f"strong_{split}.tsv")
            assert labels["--window"] == labels["--hop"] == str(seconds)
    other = {"--config.model.cache_length": "0", "--config.silence_share": "0.0"}
    for seconds in (2, 1):
        ours, theirs = (made[f"{name}_XS_{seconds}s/model"] for name in ("SAT", "no_memory"))
        changed = {key for key in theirs if theirs[key] != ours.get(key)}
        same = {"--config.name", "--workdir", *(("--init",) if seconds == 1 else ())}
        assert changed == {*other, *same}
        assert other.items() <= theirs.items()

    made.clear()
    stages_of.measure(3)
    measured = {"measured": "pkg_audio:test", "recordings": "pkg_audio:sounds_test"}
    assert set(made) == {"memory.json"} | {
        f"{folder}/{name}/metrics.json" for folder in measured for name in ("windows", *streaming)
    }
    assert made.pop("memory.json")["--tfds"] == "pkg_audio:test"
    for result, flags in made.items():
        folder, name, _ = result.split("/")
        assert flags["--model"] == str(tmp_path / "seed3" / name / "model")
        assert flags["--tfds"] == measured[folder]
    ways = {
        result.split("/")[1]: (flags["--chunk"], flags["--mode"]) for result, flags in made.items()
    }
    assert ways == {
        "windows": ("2,1", "chunks"),
        **{f"SAT_XS_{s}s": (f"{s}", "stream,chunks") for s in (2, 1)},
        **{f"no_memory_XS_{s}s": (f"{s}", "chunks") for s in (2, 1)},
    }


@pytest.mark.parametrize("size", ["xs", "tiny", "small", "base"])
def test_all_overridden_fields_exist_in_the_configs(size, monkeypatch, tmp_path):
    commands = []
    monkeypatch.setattr(course, "run_stage", lambda *stage, inputs: commands.append(stage[-1]))
    set_flags(monkeypatch, size)
    course._Course(tmp_path, tmp_path, "", ()).train(0)
    training = [command for command in commands if command[0] == "train.py"]
    assert len(training) == 2 + 2 * 2
    for _, config, *flags in training:
        script, _, choice = config.removeprefix("--config=configs/").partition(".py:")
        made = importlib.import_module(f"configs.{script}").get_config(choice)
        asked = [flag.split("=")[0] for flag in flags if flag.startswith("--config.")]
        assert asked
        for field in asked:
            *path, last = field.removeprefix("--config.").split(".")
            assert last in functools.reduce(operator.getitem, path, made), field


def test_results_of_other_scenes_are_refused(tmp_path, monkeypatch):
    made = []

    def make(*command):
        made.append(command)
        [output] = [flag for flag in command if flag.startswith("--output=")]
        Path(output.removeprefix("--output=")).touch()

    monkeypatch.setattr(stages, "run", make)
    set_flags(monkeypatch)
    data = tmp_path / "pkg_audio" / "2.1.0"
    data.mkdir(parents=True)
    (data / "strong_train.tsv").write_text("filename")

    def label():
        about = dataset_fingerprint(data)
        course._Course(tmp_path / "work", tmp_path, f"the dataset {about}", ()).label("train", 2)

    label()
    label()
    (data / "strong_train.tsv").write_text("file")
    with pytest.raises(SatError, match=r"the dataset \w+, not the dataset \w+"):
        label()
    assert len(made) == 1


@pytest.mark.parametrize(
    ("arguments", "code", "named"),
    [
        ([], 2, "--tfds_dir"),
        (["--tfds_dir=d", "--workdir=w", "--seeds=x"], 2, "--seeds=x"),
        (["--tfds_dir=d", "--workdir=w", "--seeds="], 2, "--seeds"),
        (["--tfds_dir=d", "--workdir=w", f"--seeds={2**32}"], 2, "4294967295"),
        (["--tfds_dir=d", "--workdir=w", "x"], 2, "x"),
        (["--tfds_dir=d", "--workdir=w"], 1, "d/pkg_audio"),
    ],
)
def test_wrong_arguments(arguments, code, named, capsys):
    assert run_program(course.PROGRAM, "course", *arguments) == code
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("course: ") and named in line
