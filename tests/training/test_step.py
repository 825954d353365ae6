"""One training step: its update, its randomness, its average of the weights."""

import dataclasses
import functools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax

from sat_jax.config import MaeConfig, ModelConfig
from sat_jax.models.frontend import log_mel
from sat_jax.models.mae import init_mae_variables
from sat_jax.models.transformer import init_variables
from sat_jax.training.config import OptimizerConfig, TrainConfig
from sat_jax.training.objectives import make_objective
from sat_jax.training.step import init_state, train_step
from tests.support.golden_models import clip

SMALL = ModelConfig(width=64, depth=1, target_length=32, cache_length=32, num_classes=5)
DROPOUT = dataclasses.replace(SMALL, dropout=0.5)
TX = optax.sgd(0.1)
BATCH = {
    "waveform": 0.1 * np.random.default_rng(0).standard_normal((2, 10_240)).astype(np.float32),
    "target": np.eye(5, dtype=np.float32)[:2],
}


def objective_of(model):
    optimizer = OptimizerConfig(learning_rate=0.1)
    return make_objective(TrainConfig(model=model, optimizer=optimizer, num_steps=1))


@functools.cache
def small_variables():
    return jax.jit(init_variables, static_argnums=0)(SMALL, jax.random.key(0))


@functools.cache
def compiled_step(model, ema_decay=0.0):
    objective = objective_of(model)
    return jax.jit(partial(train_step, objective=objective, tx=TX, ema_decay=ema_decay))


def test_a_step_goes_against_the_gradient():
    before, key = small_variables(), jax.random.key(0)
    after, metrics = compiled_step(SMALL)(init_state(before, TX), BATCH, key=key)
    (loss, outputs), grads = jax.jit(jax.value_and_grad(objective_of(SMALL), has_aux=True))(
        before["params"], before["batch_stats"], BATCH, key
    )
    jax.tree.map(
        lambda new, old, grad: np.testing.assert_allclose(new, old - 0.1 * grad, atol=1e-5),
        after.params,
        before["params"],
        grads,
    )
    jax.tree.map(
        partial(np.testing.assert_allclose, rtol=1e-6), after.batch_stats, outputs.batch_stats
    )
    assert int(after.step) == 1
    np.testing.assert_allclose(metrics.loss, loss, rtol=1e-5)
    np.testing.assert_allclose(metrics.grad_norm, optax.tree.norm(grads), rtol=1e-4)


def test_dropout_follows_from_seed_and_step():
    step = compiled_step(DROPOUT, 0.3)
    first = init_state(small_variables(), TX, with_ema=True)

    def loss(seed, number):
        state = first._replace(step=jnp.asarray(number, jnp.int32))
        return float(step(state, BATCH, key=jax.random.key(seed))[1].loss)

    assert loss(0, 7) == loss(0, 7)
    assert len({loss(0, 7), loss(0, 8), loss(1, 7)}) == 3


def test_the_average_of_the_weights_follows_its_definition():
    step = compiled_step(DROPOUT, 0.3)
    state = init_state(small_variables(), TX, with_ema=True)
    expected = np.asarray(state.params["head"]["bias"], np.float64)
    for age in range(6):
        state, _ = step(state, BATCH, key=jax.random.key(0))
        keep = min(0.3, (1 + age) / (10 + age))
        expected = keep * expected + (1 - keep) * np.asarray(state.params["head"]["bias"])
    np.testing.assert_allclose(state.ema_params["head"]["bias"], expected, rtol=1e-5)
    assert state.variables["params"] is state.ema_params


def test_weights_stay_float32_in_a_bfloat16_model():
    model = dataclasses.replace(SMALL, remat=True, dtype="bfloat16")
    state, key = init_state(small_variables(), TX), jax.random.key(0)
    after, metrics = compiled_step(model)(state, BATCH, key=key)
    dtypes = {x.dtype for x in jax.tree.leaves((after.params, after.batch_stats))}
    assert dtypes == {np.dtype(np.float32)}
    expected = compiled_step(SMALL)(state, BATCH, key=key)[1].loss
    np.testing.assert_allclose(metrics.loss, expected, rtol=0.02)


def test_an_autoencoder_learns():
    encoder = dataclasses.replace(SMALL, cache_length=0)
    model = MaeConfig(encoder=encoder, decoder_width=64, decoder_depth=1)
    variables = jax.jit(init_mae_variables, static_argnums=0)(model, jax.random.key(0))
    tx, num_steps = optax.adam(3e-3), 60
    state = init_state(variables, tx)
    step = jax.jit(partial(train_step, objective=objective_of(model), tx=tx, ema_decay=0.0))
    batch = {"waveform": clip()[: 4 * 5_000].reshape(4, 5_000)}
    losses = []
    for _ in range(num_steps):
        state, metrics = step(state, batch, key=jax.random.key(1))
        losses.append(float(metrics.loss))
    assert np.mean(losses[-5:]) < 0.9 * np.mean(losses[:5])
    # Running statistics start at 0, and every step adds those of the same batch.
    np.testing.assert_allclose(
        state.batch_stats["encoder"]["input_norm"]["mean"],
        (1 - 0.99**num_steps) * log_mel(batch["waveform"], SMALL.frontend).mean((0, 2)),
        rtol=1e-3,
    )
