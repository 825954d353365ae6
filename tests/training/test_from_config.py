"""From a config to a typed run: its model, its windows, its chunks."""

import dataclasses
import re

import jax
import numpy as np
import pytest

from configs import finetune, sat
from sat_jax.errors import SatError
from sat_jax.models.registry import MAES, MODELS
from sat_jax.training.config import OptimizerConfig, TrainConfig
from sat_jax.training.from_config import (
    default_window_seconds,
    num_chunks,
    to_model,
    to_train_config,
)
from sat_jax.training.objectives import make_objective
from sat_jax.weights.warm_start import fresh_variables


@pytest.mark.parametrize(
    ("fields", "seconds", "chunks"),
    [
        ({}, 4.0, 2),
        ({}, 6.0, 3),
        ({"cache_length": 0}, 4.0, 2),  # A clip model with the input of a streaming one.
        ({"cache_length": 0}, 2.0, 1),
        ({"cache_length": 0, "target_length": 1000}, 10.0, 1),
    ],
)
def test_chunks_of_a_window_are_those_that_the_loss_takes(fields, seconds, chunks):
    model = dataclasses.replace(MODELS["SAT_XS_2s"], width=64, depth=1, num_classes=5, **fields)
    assert num_chunks(model, seconds) == chunks
    optimizer = OptimizerConfig(learning_rate=1e-3)
    config = TrainConfig(model=model, optimizer=optimizer, num_steps=1, loss_per_chunk=True)
    variables = jax.eval_shape(lambda key: fresh_variables(model, key), jax.random.key(0))

    def loss_shape(num_targets):
        batch = {
            "waveform": np.zeros((2, round(16_000 * seconds)), np.float32),
            "target": np.zeros((2, num_targets, 5), np.float32),
        }
        loss, _ = jax.eval_shape(
            make_objective(config),
            variables["params"],
            variables["batch_stats"],
            batch,
            jax.random.key(1),
        )
        return loss.shape

    assert loss_shape(chunks) == ()
    with pytest.raises(ValueError, match="broadcast"):
        loss_shape(chunks + 1)


@pytest.mark.parametrize(
    ("fields", "seconds", "better"),
    [
        ({}, 5.0, 6.0),  # Two chunks of 1.92 s are scored, but targets would cover 2.5 s.
        ({"pad_last": True}, 4.0, 3.83),  # The rest is scored too, and has no target of its own.
        ({"cache_length": 0, "target_length": 1000}, 15.0, 20.0),
    ],
)
def test_windows_of_broken_chunks_are_refused_and_a_better_length_is_given(fields, seconds, better):
    model = dataclasses.replace(MODELS["SAT_XS_2s"], **fields)
    with pytest.raises(SatError, match=re.escape(f"{seconds:g}")) as raised:
        num_chunks(model, seconds)
    assert str(raised.value).endswith(f"={better:g}")
    assert num_chunks(model, better) == max(round(seconds / (model.target_length / 100)), 1)


@pytest.mark.parametrize("init", ["SAT_T_1s", "audiotransformer_tiny", "mae_tiny"])
def test_finetuning_trains_the_model_of_init(init):
    model = (MODELS | MAES)[init]
    own = to_model(finetune.get_config(), model, num_classes=7)
    encoder = getattr(model, "encoder", model)
    assert own == dataclasses.replace(encoder, num_classes=7)
    assert to_model(finetune.get_config(), model, num_classes=None) == encoder
    assert default_window_seconds(own) == {"SAT_T_1s": 2.0}.get(init, 10.0)


def test_a_short_clip_model_has_windows_of_its_input():
    model = dataclasses.replace(MODELS["audiotransformer_tiny"], target_length=304)
    assert default_window_seconds(model) == 3.04


def test_finetuning_may_change_precision_and_needs_init():
    config = finetune.get_config()
    config.model.update(dtype="bfloat16", remat=True)
    model = MODELS["SAT_T_2s"]
    changed = dataclasses.replace(model, dtype="bfloat16", remat=True)
    assert to_model(config, model, num_classes=None) == changed
    with pytest.raises(SatError, match="--init"):
        to_model(config, None, num_classes=7)


def test_fields_that_are_set_reach_the_run():
    config = sat.get_config("SAT_B_2s")
    config.model.layer_scale = 0.1
    config.num_steps = 7
    model = to_model(config, None, num_classes=None)
    run = to_train_config(config, model, epoch_size=1000, data={"clips": "x"}, init="y")
    assert run.model.layer_scale == 0.1 and run.num_steps == 7
    assert (run.data, run.init) == ({"clips": "x"}, "y")
