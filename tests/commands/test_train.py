"""sat-jax train: a run from the command line, and wrong flags."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import soundfile

from sat_jax.commands import train
from sat_jax.runtime.devices import num_cpu_devices, usable_cores
from sat_jax.training.config_files import load_config
from sat_jax.training.from_config import to_model
from sat_jax.weights.checkpoint import Checkpoint, fingerprint, load_checkpoint, save_checkpoint
from sat_jax.weights.warm_start import fresh_variables
from tests.support.programs import run_command, run_program

ROOT = Path(__file__).parents[2]


def test_a_config_found_by_name_trains_from_a_checkpoint(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(3):
        soundfile.write(tmp_path / f"{i}.wav", 0.1 * rng.standard_normal(16_000), 16_000)
    table = tmp_path / "clips.csv"
    table.write_text("file,labels\n0.wav,Speech\n1.wav,Dog;Cat\n2.wav,\ngone.wav,Music\n")
    model = to_model(load_config("sat:SAT_T_1s,debug"), None, num_classes=None)
    first = jax.jit(fresh_variables, static_argnums=0)(model, jax.random.key(0))
    labels = tuple(f"class {i}" for i in range(527))
    save_checkpoint(tmp_path / "first", Checkpoint(config=model, variables=first, labels=labels))
    empty = tmp_path / "empty"
    empty.mkdir()
    command = [sys.executable, "-m", "sat_jax", "train", "--config=sat.py:SAT_T_1s,debug"]
    command += ["--clips", "../clips.csv", "--workdir=../run", "--init=../first"]
    command += ["--config.num_steps=2", "--config.data.psl_share=0"]
    command += ["--config.optimizer.learning_rate=1e-6", "--config.data.batch_size=16"]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=empty, env=env, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert "3 clips" in done.stdout and "1 missing" in done.stdout
    trained = load_checkpoint(tmp_path / "run" / "model")
    assert trained.config == model and "Speech" in trained.labels
    jax.tree.map(  # Two steps of 1e-6 from the start.
        lambda new, old: np.testing.assert_allclose(new, old, atol=1e-5),
        trained.variables["params"],
        jax.tree.map(np.asarray, first["params"]),
    )
    record = json.loads((tmp_path / "run" / "config.json").read_text())
    assert record["config"]["data"]["clips"] and record["config"]["num_steps"] == 2
    assert record["config"]["init"] == fingerprint(model, first)
    # Several cores share a batch of 16.
    assert record["devices"] == {"kind": "cpu", "count": num_cpu_devices(16, usable_cores())}


@pytest.mark.parametrize(
    ("arguments", "code", "value"),
    [
        (["--config", "sat.py:SAT_X"], 2, "SAT_X"),
        (["--config", "configs/none.py"], 2, "configs/none.py"),
        (["--config", "sat.py", "--config.optimizer.lr=1"], 2, "optimizer.learning_rate"),
        (["--config", "sat.py", "--config.data.batch_sizes", "1"], 2, "data.batch_size"),
        (["--config", "sat.py", "--config.batch_size=1"], 2, "data.batch_size"),
        (["--config", "sat.py", "--config.data=1"], 2, "data.batch_size"),
        (["--config", "sat.py", "--noconfig.fsdq"], 2, "fsdq: did you mean fsdp?"),
        (["--config.optimizer.learning_rte=1", "--config", "sat.py"], 2, "learning_rate?"),
        (["--config", "sat.py", "--config.optimizer.learning-rate=1"], 2, "learning_rate?"),
        (["--config", "sat.py"], 2, "--workdir"),
        (["--workdir=w", "--clips=a"], 2, "--config"),
        (["--config=sat.py", "--workdir=w"], 2, "--clips"),
        (
            ["--config=sat", "--workdir=w", "--clips=a", "--valid_clips=a", "--valid_where=fold"],
            2,
            "--valid_where=fold",
        ),
        (["--config=sat.py", "--workdir=w", "--clips", "no.csv"], 1, "no.csv"),
        (["--config=mae", "--workdir=w", "--clips=a", "--config.data.psl_share=1"], 1, "psl_share"),
        (
            ["--config=sat.py", "--workdir=w", "--clips=a", "--config.frozen_input_norm"],
            1,
            "--init",
        ),
        (["--config=sat.py", "--workdir=w", "--clips=a", "--num_processes=2"], 2, "--coordinator"),
        (["--config=sat.py", "--workdir=w", "--clips=a", "b.wav"], 2, "b.wav"),
    ],
)
def test_mistakes_end_in_one_line_with_the_value(arguments, code, value, monkeypatch, capsys):
    monkeypatch.setattr(train, "use_cores_as_devices", lambda batch_size: None)
    monkeypatch.setattr(train, "keep_freed_memory", lambda: None)
    monkeypatch.setattr(sys, "argv", ["", *arguments])  # ml_collections reads overrides from here.
    assert run_command("train", *arguments) == code
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("sat-jax train: ") and value in line


def test_own_classes_need_another_config(monkeypatch, tmp_path, capsys):
    (tmp_path / "own.csv").write_text("file,labels\na.wav,my own hiss\n")
    arguments = ["--config=sat.py:SAT_XS_2s", "--workdir=w", "--clips", str(tmp_path / "own.csv")]
    monkeypatch.setattr(train, "use_cores_as_devices", lambda batch_size: None)
    monkeypatch.setattr(train, "keep_freed_memory", lambda: None)
    monkeypatch.setattr(sys, "argv", ["", *arguments])
    assert run_command("train", *arguments) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "own.csv, line 2" in line and "--config finetune.py" in line


def test_help_works_without_ml_collections(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ml_collections", None)
    spec = importlib.util.find_spec("sat_jax.commands.train")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert run_program(module.PROGRAM, "train.py", "--help") == 0
    assert "--config" in capsys.readouterr().out
    assert run_program(module.PROGRAM, "train.py", "--config=sat", "--config.num_steps=2") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("train.py: ") and "ml_collections" in line and "sat-jax[train]" in line
