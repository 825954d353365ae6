"""The files in configs/: published values, and a real step of each."""

import dataclasses

import jax
import numpy as np
import pytest

from configs import finetune, mae, sat, vit
from sat_jax.errors import SatError
from sat_jax.models.registry import MAES, MODELS
from sat_jax.runtime.sharding import make_mesh
from sat_jax.streaming.pieces import plan_pieces
from sat_jax.training.from_config import default_window_seconds, to_model, to_train_config
from sat_jax.training.step import compiled_step, make_state
from sat_jax.weights.warm_start import fresh_variables


def run_of(config, epoch_size=1000):
    model = to_model(config, None, num_classes=None)
    return to_train_config(config, model, epoch_size=epoch_size, data=config.data.to_dict())


def plan_of(run):
    frames = run.model.frontend.num_frames(round(run.data["window_seconds"] * 16_000))
    return plan_pieces(run.model, frames)


@pytest.mark.parametrize("name", sat.NAMES)
def test_sat_configs_are_the_published_ones(name):
    run = run_of(sat.get_config(name))
    assert run.model == MODELS[name]
    assert run.data["sampler"] == "balanced" and run.data["draws_per_epoch"] == 200_000
    assert run.data["psl_share"] == 1.0
    assert run.data["window_seconds"] == default_window_seconds(run.model)
    assert plan_of(run).num_whole == 2
    assert run.optimizer.learning_rate == 5e-4 and run.optimizer.final_fraction == 0.1
    assert run.data["batch_size"] == 32
    assert run.num_steps == 7813  # 250 epochs of 1000 clips in batches of 32.
    assert round(run.optimizer.warmup_fraction * run.num_steps) == 313  # 10 epochs.


@pytest.mark.parametrize("size", vit.NAMES)
def test_vit_configs_take_a_window_as_one_chunk(size):
    run = run_of(vit.get_config(size))
    assert run.model == MODELS[f"audiotransformer_{size}"]
    assert (plan_of(run).num_whole, plan_of(run).rest) == (1, 0)


@pytest.mark.parametrize("size", mae.NAMES)
def test_mae_configs_are_the_published_ones(size):
    run = run_of(mae.get_config(size))
    assert run.model == MAES[f"mae_{size}"]
    optimizer = run.optimizer
    assert (optimizer.learning_rate, optimizer.final_fraction) == (2e-4, 0.01)
    assert optimizer.weight_decay == 5e-7 and run.data["batch_size"] == 32
    assert run.num_steps == 1250  # 40 epochs of 1000 clips in batches of 32.
    assert round(optimizer.warmup_fraction * run.num_steps) == 94  # 3 epochs.


def test_every_model_has_a_config():
    named = {*sat.NAMES, *(f"audiotransformer_{size}" for size in vit.NAMES)}
    assert named == MODELS.keys() and {f"mae_{size}" for size in mae.NAMES} == MAES.keys()


def test_finetuning_keeps_the_input_statistics():
    assert finetune.get_config().frozen_input_norm


@pytest.mark.parametrize("config", [finetune, mae, sat, vit])
@pytest.mark.parametrize("argument", ["SAT_X", "debug,SAT_X"])
def test_unknown_models_are_refused(config, argument):
    with pytest.raises(SatError, match=argument):
        config.get_config(argument)


@pytest.mark.parametrize("config", [mae, vit, sat, finetune])
def test_every_config_makes_a_real_step(config):
    fields = config.get_config("debug")
    transformer = fields.model.get("encoder", fields.model)
    if "depth" in transformer:
        transformer.depth = 1
    tiny = dataclasses.replace(MODELS["SAT_T_2s"], width=64, depth=1)
    model = to_model(fields, tiny, num_classes=None)
    run = to_train_config(fields, model, epoch_size=100, data={})
    assert run.num_steps == 10
    rng = np.random.default_rng(0)
    samples = round(16_000 * (fields.data.window_seconds or default_window_seconds(model)))
    batch = {"waveform": 0.1 * rng.standard_normal((2, samples)).astype(np.float32)}
    if config is not mae:
        batch["target"] = rng.random((2, 527)).astype(np.float32)
    variables = jax.jit(fresh_variables, static_argnums=0)(model, jax.random.key(0))
    state = make_state(run, variables)
    before = jax.tree.map(np.asarray, state.params)
    after, metrics = compiled_step(run, make_mesh())(state, batch, key=jax.random.key(0))
    assert np.isfinite(metrics.loss) and metrics.grad_norm > 0
    moved = jax.tree_util.tree_leaves_with_path(
        jax.tree.map(lambda new, old: bool(np.any(new != old)), after.params, before)
    )
    still = [jax.tree_util.keystr(path) for path, has_moved in moved if not has_moved]
    # Only the head that an autoencoder's encoder does not use has no gradient.
    assert not still or (config is mae and all("['head" in name for name in still)), still
