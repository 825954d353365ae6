"""The command profile: tables, JSON, files, error lines and exit codes."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest

from sat_jax.commands import profile as command
from sat_jax.config import ModelConfig
from sat_jax.errors import SatError
from sat_jax.models import registry
from sat_jax.profile import published_table
from tests.support.programs import run_command

SAT = ModelConfig(width=64, depth=1, num_classes=5, target_length=32, cache_length=32)


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setitem(registry.MODELS, "tiny", SAT)
    return "tiny"


def test_all_numbers_come_as_json(tiny, tmp_path, capsys):
    file = tmp_path / "profile.json"
    flags = ["--format=json", f"--output={file}", "--nolatency", "--batch=2", "--chunk=0.16"]
    assert run_command("profile", tiny, *flags) == 0
    assert capsys.readouterr() == ("", "")
    report = json.loads(file.read_text())
    [model] = report["models"]
    assert model["multiply_adds"]["total"] * 4 == model["matmul_flops"]
    assert model["config"] == SAT.to_dict()
    assert model["tokens"] == {"new": 4, "cached": 8}
    assert model["latency"] is model["published"] is None
    assert report["machine"]["platform"] == "cpu"


def test_the_table(tiny, capsys):
    assert run_command("profile", tiny, "--seconds=0.01") == 0
    out, err = capsys.readouterr()
    rows = [line for line in out.splitlines() if line.startswith("|")]
    assert (len(rows), err) == (3, "")
    assert len({row.count("|") for row in rows}) == 1
    assert rows[-1].startswith("| tiny | 0.333313 | 8/8 |")


def test_published_models_stand_beside_the_published_figures(monkeypatch, capsys):
    small = dataclasses.replace(registry.MODELS["SAT_T_2s"], depth=1, width=64)
    monkeypatch.setitem(registry.MODELS, "SAT_T_2s", small)
    rows = tuple(row for row in published_table.PUBLISHED if row.model == "SAT_T_2s")
    monkeypatch.setattr(published_table, "PUBLISHED", rows)
    monkeypatch.setattr(published_table, "UNPUBLISHED", ())
    assert run_command("profile", "--nolatency") == 0
    out = capsys.readouterr().out
    assert "| 48/48 (48/48) |" in out
    differences = [line for line in out.splitlines() if line.startswith("- SAT_T_2s, 2 s, ")]
    figures = [line.split(", ")[2].split(":")[0] for line in differences]
    assert figures == ["parameters", "GFLOPs", "memory"]


def test_a_failure_leaves_the_older_file(tiny, tmp_path, capsys, monkeypatch):
    def fail(*_args, **_options):
        raise SatError("no luck")

    file = tmp_path / "profile.md"
    file.write_text("older")
    monkeypatch.setattr("sat_jax.profile.measure.compile_step", fail)
    assert run_command("profile", tiny, f"--output={file}") == 1
    assert capsys.readouterr() == ("", "sat-jax profile: no luck\n")
    assert file.read_text() == "older"
    assert [path.name for path in tmp_path.iterdir()] == ["profile.md"]


def test_the_model_is_not_overwritten(tmp_path, capsys):
    file = tmp_path / "model" / "metadata"
    file.parent.mkdir()
    file.write_text("older")
    assert run_command("profile", tmp_path, f"--output={file}") == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("sat-jax profile: ") and str(file) in line
    assert file.read_text() == "older"


@pytest.mark.parametrize(
    ("arguments", "code", "named"),
    [
        (["SAT_X_2s"], 1, "SAT_X_2s"),
        (["mae_tiny"], 1, "mae_tiny"),
        (["SAT_T_2s", "--output=nowhere/at/all"], 1, "nowhere/at/all"),
        (["SAT_T_2s", "--chunk=0.1"], 2, "0.1"),
        (["SAT_T_2s", "--batch=0"], 2, "batch"),
        (["SAT_T_2s", "--format=xml"], 2, "xml"),
        (["SAT_T_2s", "--seconds=-1"], 2, "seconds"),
    ],
)
def test_errors_are_one_line(arguments, code, named, capsys):
    assert run_command("profile", *arguments) == code
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith("sat-jax profile: ") and named in err


def test_importing_the_program_defines_no_flags_and_no_jax():
    code = (
        "import sys, sat_jax.profile.__main__; from absl import flags; "
        "assert 'chunk' not in flags.FLAGS and 'jax' not in sys.modules; "
        "import profile; assert 'sat_jax' not in profile.__file__"
    )
    root = Path(command.__file__).parents[2]
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root)
