"""The course: its stages, and what each of them is given."""

import functools
import importlib
import operator
import types
from pathlib import Path

import pytest

from projects.box_model import course, stages
from projects.box_model.dataset_fingerprint import dataset_fingerprint
from sat_jax.errors import SatError
from tests.support.programs import run_program


def test_stages_begin_where_others_end(monkeypatch, tmp_path):
    """The model that each stage starts from, and how compared models differ."""
    made = {}

    def note(work, stage, result, command, inputs):
        flags = dict(flag.split("=", 1) for flag in command if "=" in flag)
        made[str(result.relative_to(tmp_path / "seed3"))] = flags

    monkeypatch.setattr(course, "run_stage", note)
    monkeypatch.setattr(course, "_SIZE", types.SimpleNamespace(value="xs"))
    stages_of = course._Course(tmp_path, tmp_path, "", ())
    stages_of.train(3)
    begins = {
        name: str(Path(flags["--init"]).relative_to(tmp_path / "seed3"))
        for name, flags in made.items()
        if "--init" in flags
    }
    streaming = ("SAT_XS_2s", "SAT_XS_1s", "no_memory_XS_2s", "no_memory_XS_1s")
    assert begins == {
        "sounds/model": "mae/model",
        "vit/model": "sounds/model",
        **{f"{name}/model": "vit/model" for name in ("vit_longer", *streaming)},
    }
    assert {flags["--config.seed"] for flags in made.values()} == {"3"}
    assert {flags["--valid_tfds"] for flags in made.values()} == {"pkg_audio:validation"}
    assert made["mae/model"]["--tfds"] == made["sounds/model"]["--tfds"] == "pkg_audio:sounds"
    fields = {"--config.num_steps", "--config.data.batch_size", "--config.evaluate_every"}
    vit, longer = made["vit/model"], made["vit_longer/model"]
    changed = {key for key in longer if longer[key] != vit.get(key)}
    assert changed == fields | {"--init", "--workdir"} and vit.keys() == longer.keys()
    for name in ("vit", *streaming):
        assert made[f"{name}/model"]["--tfds"] == "pkg_audio:train"
    for name in streaming:
        ours = made[f"{name}/model"]
        assert {field: ours[field] for field in fields} == {f: longer[f] for f in fields}
        assert ours["--psl"] == str(tmp_path / f"labels_{name[-2:]}.parquet")
    other = {"--config.model.cache_length": "0", "--config.silence_share": "0.0"}
    for seconds in (2, 1):
        ours, theirs = (made[f"{name}_XS_{seconds}s/model"] for name in ("SAT", "no_memory"))
        changed = {key for key in theirs if theirs[key] != ours.get(key)}
        assert changed == {*other, "--config.name", "--workdir"}
        assert other.items() <= theirs.items()

    made.clear()
    stages_of.measure(3)
    assert set(made) == {"memory.json"} | {
        f"measured/{name}/metrics.json" for name in ("vit", "vit_longer", *streaming)
    }
    for result, flags in made.items():
        name = result.split("/")[1] if "/" in result else None
        assert flags.get("--model") == (name and str(tmp_path / "seed3" / name / "model"))
        assert flags["--tfds"] == "pkg_audio:test"
    ways = {
        result.split("/")[1]: (flags["--chunk"], flags["--mode"])
        for result, flags in made.items()
        if result != "memory.json"
    }
    assert ways == {
        **dict.fromkeys(("vit", "vit_longer"), ("2,1", "chunks,sliding,clip")),
        **{f"SAT_XS_{s}s": (f"{s}", "stream,chunks") for s in (2, 1)},
        **{f"no_memory_XS_{s}s": (f"{s}", "chunks") for s in (2, 1)},
    }


@pytest.mark.parametrize("size", ["xs", "tiny", "small", "base"])
def test_all_overridden_fields_exist_in_the_configs(size, monkeypatch, tmp_path):
    commands = []
    monkeypatch.setattr(course, "run_stage", lambda *stage, inputs: commands.append(stage[-1]))
    monkeypatch.setattr(course, "_SIZE", types.SimpleNamespace(value=size))
    course._Course(tmp_path, tmp_path, "", ()).train(0)
    assert len(commands) == 1 + 3 + 2 * 2
    for _, config, *flags in commands:
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
    data = tmp_path / "pkg_audio" / "2.0.0"
    data.mkdir(parents=True)
    (data / "strong_train.tsv").write_text("filename")

    def label():
        about = dataset_fingerprint(data)
        course._Course(tmp_path / "work", tmp_path, f"the dataset {about}", ()).label_chunks(2)

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
