"""The training configs, and train.py, which runs them."""

import json
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import soundfile

from configs import sat, vit
from configs.common import to_train_config
from sat_jax.checkpoint import load_checkpoint, save_checkpoint
from sat_jax.errors import SatError
from sat_jax.frontend import log_mel
from sat_jax.models.clip import plan_pieces
from sat_jax.models.registry import MODELS
from sat_jax.tagger import Checkpoint
from sat_jax.training.loop import train
from sat_jax.warm_start import fresh_variables

ROOT = Path(__file__).parents[1]
SATS = [name for name in MODELS if name.startswith("SAT_")]
VITS = [name for name in MODELS if not name.startswith("SAT_")]


def run_of(config, num_clips=1000):
    return to_train_config(config, num_clips=num_clips, data={})


def frames(config):
    return config.model.frontend.num_frames(round(config.data["window_seconds"] * 16_000))


@pytest.mark.parametrize("name", SATS)
def test_sat_configs_are_the_published_ones(name):
    run = run_of(sat.get_config(name))
    assert run.model == MODELS[name]
    assert plan_pieces(run.model, frames(run)).num_whole == 2
    assert run.optimizer.learning_rate == 5e-4 and run.optimizer.final_fraction == 0.1
    assert run.data["batch_size"] == 32
    assert run.num_steps == 7813  # 250 epochs of 1000 clips in batches of 32
    assert round(run.optimizer.warmup_fraction * run.num_steps) == 313  # 10 epochs


@pytest.mark.parametrize("name", VITS)
def test_vit_configs_take_clips_in_one_piece(name):
    run = run_of(vit.get_config(name.removeprefix("audiotransformer_")))
    assert run.model == MODELS[name]
    plan = plan_pieces(run.model, frames(run))
    assert (plan.num_whole, plan.rest) == (1, 0)


@pytest.mark.parametrize("get_config", [sat.get_config, vit.get_config])
def test_wrong_arguments_are_refused(get_config):
    for arg in ("SAT_X", "debug,SAT_X"):
        with pytest.raises(SatError, match="SAT_X"):
            get_config(arg)


def test_fields_can_be_set():
    config = sat.get_config("SAT_B_2s")
    config.model.layer_scale = 0.1
    config.num_steps = 7
    run = run_of(config)
    assert run.model.layer_scale == 0.1 and run.num_steps == 7


def test_the_debug_clip_model_trains(tmp_path):
    config = vit.get_config("tiny,debug")
    config.num_steps = 2
    run = run_of(config)
    rng = np.random.default_rng(0)
    waveform = 0.1 * rng.standard_normal((4, 160_000)).astype(np.float32)
    batch = {"waveform": waveform, "target": np.zeros((4, 527), np.float32)}
    assert log_mel(waveform[:1], run.model.frontend).shape[-1] == 1001
    result = train(
        run,
        lambda start: iter([batch] * 2),
        tmp_path,
        make_variables=lambda key: jax.jit(fresh_variables, static_argnums=0)(run.model, key),
        labels=[str(i) for i in range(527)],
    )
    assert result.model is not None and load_checkpoint(result.model).config == run.model


def train_py(*args):
    command = [sys.executable, "train.py", *map(str, args)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)


def test_train_py_trains_from_a_checkpoint(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(3):
        soundfile.write(tmp_path / f"{i}.wav", 0.1 * rng.standard_normal(16_000), 16_000)
    table = tmp_path / "clips.csv"
    table.write_text("file,labels\n0.wav,Speech\n1.wav,Dog;Cat\n2.wav,\ngone.wav,Music\n")
    model = run_of(sat.get_config("SAT_T_1s,debug")).model
    first = jax.jit(fresh_variables, static_argnums=0)(model, jax.random.key(0))
    labels = tuple(f"class {i}" for i in range(527))
    save_checkpoint(tmp_path / "first", Checkpoint(config=model, variables=first, labels=labels))
    flags = ["--clips", table, "--folder", tmp_path, "--workdir", tmp_path / "run"]
    flags += ["--config", "configs/sat.py:SAT_T_1s,debug", "--init", tmp_path / "first"]
    done = train_py(*flags, "--config.num_steps=2", "--config.optimizer.learning_rate=1e-6")
    assert done.returncode == 0, done.stderr
    assert "3 clips, 1 of the table's missing" in done.stdout
    trained = load_checkpoint(tmp_path / "run" / "model")
    assert trained.config == model and "Speech" in trained.labels
    jax.tree.map(  # two steps of 1e-6 from where it started
        lambda new, old: np.testing.assert_allclose(new, old, atol=1e-5),
        trained.variables["params"],
        jax.tree.map(np.asarray, first["params"]),
    )
    about = json.loads((tmp_path / "run" / "config.json").read_text())["config"]
    assert about["data"]["num_clips"] == 3 and about["num_steps"] == 2


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        (["--config", "configs/sat.py:SAT_X"], 2, "SAT_X"),
        (["--config", "configs/none.py"], 2, "configs/none.py"),
        (["--config", "configs/sat.py", "--config.optimizer.lr=1"], 2, "lr"),
        (["--config", "configs/sat.py"], 2, "--workdir is missing"),
        (["--config", "configs/sat.py", "--workdir", "w", "--clips", "no.csv"], 1, "no.csv"),
    ],
)
def test_train_py_tells_mistakes_in_one_line(flags, code, message):
    done = train_py(*flags)
    assert done.returncode == code
    assert len(done.stderr.splitlines()) == 1 and message in done.stderr
