"""The training configs, and train.py, which runs them."""

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import soundfile

from configs import finetune, mae, sat, vit
from sat_jax.errors import SatError
from sat_jax.models.registry import MAES, MODELS
from sat_jax.runtime.devices import num_cpu_devices, usable_cores
from sat_jax.runtime.sharding import make_mesh
from sat_jax.streaming.pieces import plan_pieces
from sat_jax.tagger import Checkpoint
from sat_jax.training.config import OptimizerConfig, TrainConfig
from sat_jax.training.loop import compiled_step
from sat_jax.training.objectives import make_objective
from sat_jax.training.optimizer import make_optimizer
from sat_jax.training.stages import num_chunks, to_model, to_train_config, window_seconds
from sat_jax.training.state import init_state
from sat_jax.weights.checkpoint import load_checkpoint, save_checkpoint
from sat_jax.weights.warm_start import fresh_variables

ROOT = Path(__file__).parents[2]
SATS = [name for name in MODELS if name.startswith("SAT_")]
VITS = [name for name in MODELS if not name.startswith("SAT_")]


def run_of(config, epoch_size=1000, init=None):
    model = to_model(config, init, num_classes=None)
    return to_train_config(config, model, epoch_size=epoch_size, data=config.data.to_dict())


def training_of(model, **fields):
    optimizer = OptimizerConfig(learning_rate=1e-3)
    return TrainConfig(model=model, optimizer=optimizer, num_steps=1, **fields)


def frames(config):
    return config.model.frontend.num_frames(round(config.data["window_seconds"] * 16_000))


@pytest.mark.parametrize("name", SATS)
def test_sat_configs_are_the_published_ones(name):
    run = run_of(sat.get_config(name))
    assert run.data["sampler"] == "balanced" and run.data["draws_per_epoch"] == 200_000
    assert run.data["psl_share"] == 1.0 and run.data["window_seconds"] == window_seconds(run.model)
    assert run.model == MODELS[name]
    assert plan_pieces(run.model, frames(run)).num_whole == 2
    assert run.optimizer.learning_rate == 5e-4 and run.optimizer.final_fraction == 0.1
    assert run.data["batch_size"] == 32
    assert run.num_steps == 7813  # 250 epochs of 1000 clips in batches of 32
    assert round(run.optimizer.warmup_fraction * run.num_steps) == 313  # 10 epochs


@pytest.mark.parametrize(
    ("fields", "seconds", "chunks"),
    [
        ({}, 4.0, 2),
        ({}, 6.0, 3),
        ({"cache_length": 0}, 4.0, 2),  # a clip model that hears as a streaming one does
        ({"cache_length": 0}, 2.0, 1),
        ({"cache_length": 0, "target_length": 1000}, 10.0, 1),
    ],
)
def test_chunks_of_a_window_are_what_the_model_answers_one_by_one(fields, seconds, chunks):
    model = dataclasses.replace(MODELS["SAT_XS_2s"], width=64, depth=1, **fields)
    assert num_chunks(model, seconds) == chunks
    objective = make_objective(training_of(model, loss_per_chunk=True))
    variables = jax.jit(fresh_variables, static_argnums=0)(model, jax.random.key(0))
    batch = {"waveform": np.zeros((2, round(16_000 * seconds)), np.float32)}
    batch["target"] = np.zeros((2, chunks, 527), np.float32)
    run = (variables["params"], variables["batch_stats"], batch, jax.random.key(1))
    loss, _ = jax.eval_shape(objective, *run)
    assert loss.shape == ()
    batch["target"] = np.zeros((2, chunks + 1, 527), np.float32)
    with pytest.raises(ValueError, match="broadcast"):
        jax.eval_shape(objective, *run)


@pytest.mark.parametrize(
    ("fields", "seconds", "better"),
    [
        ({}, 5.0, 6.0),  # Two chunks of 1.92 s are heard, and targets would be of 2.5 s.
        ({"pad_last": True}, 4.0, 3.83),  # The rest is heard too, and has no target of its own.
        ({"cache_length": 0, "target_length": 1000}, 15.0, 20.0),
    ],
)
def test_windows_of_broken_chunks_are_refused_and_better_ones_named(fields, seconds, better):
    model = dataclasses.replace(MODELS["SAT_XS_2s"], **fields)
    with pytest.raises(SatError, match=f"{seconds:g} s is none: set .*={better:g}$"):
        num_chunks(model, seconds)
    assert num_chunks(model, better) == max(round(seconds / (model.target_length / 100)), 1)


@pytest.mark.parametrize("name", VITS)
def test_vit_configs_take_clips_in_one_piece(name):
    run = run_of(vit.get_config(name.removeprefix("audiotransformer_")))
    assert run.model == MODELS[name]
    plan = plan_pieces(run.model, frames(run))
    assert (plan.num_whole, plan.rest) == (1, 0)


@pytest.mark.parametrize("name", mae.NAMES)
def test_mae_configs_are_the_published_ones(name):
    run = run_of(mae.get_config(name))
    assert run.model == MAES[f"mae_{name}"]
    optimizer = run.optimizer
    assert (optimizer.learning_rate, optimizer.final_fraction) == (2e-4, 0.01)
    assert optimizer.weight_decay == 5e-7 and run.data["batch_size"] == 32
    assert run.num_steps == 1250  # 40 epochs of 1000 clips in batches of 32
    assert round(optimizer.warmup_fraction * run.num_steps) == 94  # 3 epochs


@pytest.mark.parametrize("init", ["SAT_T_1s", "audiotransformer_tiny", "mae_tiny"])
def test_finetuning_takes_the_model_it_starts_from(init):
    model = (MODELS | MAES)[init]
    own = to_model(finetune.get_config(), model, num_classes=7)
    encoder = getattr(model, "encoder", model)
    assert own == dataclasses.replace(encoder, num_classes=7)
    assert window_seconds(own) == {"SAT_T_1s": 2.0}.get(init, 10.0)
    with pytest.raises(SatError, match="model of --init: name one"):
        to_model(finetune.get_config(), None, num_classes=7)


@pytest.mark.parametrize("config", [finetune, mae, sat, vit])
def test_wrong_arguments_are_refused(config):
    for arg in ("SAT_X", "debug,SAT_X"):
        with pytest.raises(SatError, match="SAT_X"):
            config.get_config(arg)


def test_fields_can_be_set():
    config = sat.get_config("SAT_B_2s")
    config.model.layer_scale = 0.1
    config.num_steps = 7
    run = run_of(config)
    assert run.model.layer_scale == 0.1 and run.num_steps == 7


@pytest.mark.parametrize(
    ("config", "arg"), [(mae, "tiny"), (vit, "tiny"), (sat, "SAT_T_2s"), (finetune, "own")]
)
def test_every_config_makes_a_real_step(config, arg):
    fields = config.get_config(f"{arg},debug")
    tiny = dataclasses.replace(MODELS["SAT_T_2s"], width=64, depth=2)
    model = to_model(fields, tiny, num_classes=None)
    run = to_train_config(fields, model, epoch_size=100, data={})
    assert run.num_steps == 10
    rng = np.random.default_rng(0)
    samples = round(16_000 * (fields.data.window_seconds or window_seconds(model)))
    batch = {"waveform": 0.1 * rng.standard_normal((2, samples)).astype(np.float32)}
    if config is not mae:
        batch["target"] = rng.random((2, 527)).astype(np.float32)
    variables = jax.jit(fresh_variables, static_argnums=0)(model, jax.random.key(0))
    state = init_state(variables, make_optimizer(run.optimizer, run.num_steps))
    before = jax.tree.map(np.asarray, state.params)
    step = compiled_step(run, make_mesh())
    after, metrics = step(state, batch, key=jax.random.key(0))
    assert np.isfinite(metrics.loss) and metrics.grad_norm > 0
    # Every weight that has a gradient has moved; those without are known by name.
    moved = jax.tree_util.tree_map_with_path(
        lambda path, new, old: (jax.tree_util.keystr(path), bool(np.any(new != old))),
        after.params,
        before,
    )
    still = {name for name, has in jax.tree.leaves(moved, is_leaf=_is_pair) if not has}
    assert not still or (config is mae and all("encoder']['head" in name for name in still)), still


def test_fine_tuning_takes_over_the_model_but_for_what_is_said():
    tiny = dataclasses.replace(MODELS["SAT_T_2s"], width=64, depth=2)
    config = finetune.get_config()
    assert to_model(config, tiny, num_classes=3) == dataclasses.replace(tiny, num_classes=3)
    config.model.update(dtype="bfloat16", remat=True)
    changed = dataclasses.replace(tiny, dtype="bfloat16", remat=True)
    assert to_model(config, tiny, num_classes=None) == changed
    assert to_model(finetune.get_config(), tiny, num_classes=None) == tiny
    assert finetune.get_config().frozen_input_norm
    with pytest.raises(SatError, match="name one"):
        to_model(config, None, num_classes=None)


def _is_pair(node):
    return isinstance(node, tuple) and len(node) == 2 and isinstance(node[0], str)


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
    flags += ["--config.num_steps=2", "--config.data.psl_share=0"]
    flags += ["--config.optimizer.learning_rate=1e-6", "--config.data.batch_size=16"]
    done = train_py(*flags)
    assert done.returncode == 0, done.stderr
    assert "3 clips to learn from, 1 missing" in done.stdout
    trained = load_checkpoint(tmp_path / "run" / "model")
    assert trained.config == model and "Speech" in trained.labels
    jax.tree.map(  # two steps of 1e-6 from where it started
        lambda new, old: np.testing.assert_allclose(new, old, atol=1e-5),
        trained.variables["params"],
        jax.tree.map(np.asarray, first["params"]),
    )
    about = json.loads((tmp_path / "run" / "config.json").read_text())
    assert about["config"]["data"]["clips"] and about["config"]["num_steps"] == 2
    # Some of them share a batch of 16 where there are several cores.
    assert about["devices"] == {"kind": "cpu", "count": num_cpu_devices(16, usable_cores())}

    other = jax.jit(fresh_variables, static_argnums=0)(model, jax.random.key(1))
    shutil.rmtree(tmp_path / "first")
    save_checkpoint(tmp_path / "first", Checkpoint(config=model, variables=other, labels=labels))
    done = train_py(*flags)
    assert done.returncode == 1 and "another config" in done.stderr and "init" in done.stderr


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        (["--config", "configs/sat.py:SAT_X"], 2, "SAT_X"),
        (
            ["--config", "configs/none.py"],
            2,
            "train.py: --config can't be read: No such file or directory: 'configs/none.py'; see",
        ),
        (["--config", "configs/sat.py", "--config.optimizer.lr=1"], 2, "no field lr"),
        (["--config", "configs/sat.py"], 2, "--workdir is needed"),
        (
            [
                "--config",
                "configs/sat.py",
                "--workdir=w",
                "--clips=a",
                "--valid_clips=a",
                "--valid_where=fold",
            ],
            2,
            "--valid_where=fold is not COLUMN=VALUE,VALUE",
        ),
        (["--config", "configs/sat.py", "--workdir", "w", "--clips", "no.csv"], 1, "no.csv"),
        (
            ["--config=configs/sat.py", "--workdir=w", "--clips=a", "--config.frozen_input_norm"],
            1,
            "there is no --init: give a model that has",
        ),
        (
            ["--config=configs/sat.py", "--workdir=w", "--clips=a", "--num_processes=2"],
            2,
            "need --coordinator or --distributed",
        ),
    ],
)
def test_train_py_tells_mistakes_in_one_line(flags, code, message):
    done = train_py(*flags)
    assert done.returncode == code
    assert len(done.stderr.splitlines()) == 1 and message in done.stderr
