"""One training step, against the published code's numbers and against PyTorch."""

import dataclasses
import functools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

from sat_jax.config import MaeConfig, ModelConfig
from sat_jax.convert.weight_table import to_torch
from sat_jax.errors import SatError
from sat_jax.models.frontend import log_mel
from sat_jax.models.mae import init_mae_variables
from sat_jax.models.transformer import init_variables
from sat_jax.streaming import StreamingModel, make_framing
from sat_jax.training.config import OptimizerConfig, TrainConfig
from sat_jax.training.losses import binary_cross_entropy
from sat_jax.training.objectives import make_objective, tagging_loss
from sat_jax.training.step import init_state, train_step
from tests.support.golden_models import clip, mae_config, numbers, small_config, small_weights

KEY = jax.random.key(1)


def run_config(model, **fields):
    """The config of a run, of which the objective takes what concerns it."""
    fields = {"optimizer": OptimizerConfig(learning_rate=0.1)} | fields
    return TrainConfig(model=model, num_steps=1, **fields)


def tensors(config, collection, tree):
    """A tree of ours under PyTorch's names."""
    return to_torch({collection: tree}, config)


@pytest.fixture(scope="module")
def golden_step():
    """Loss, answer and gradients of ours on the golden batch."""
    config, variables = small_config("sat_mean_2s"), small_weights("sat_mean_2s")
    waves, numbers_of = numbers("frontend"), numbers("train_step")
    names = ("wave_noise", "wave_chirp", "wave_burst")
    waveform = np.stack([*(waves[name][:64_000] for name in names), clip()[:64_000]])
    batch = {"waveform": waveform, "target": numbers_of["target"]}
    loss_of = make_objective(run_config(config))
    (loss, answer), grads = jax.jit(jax.value_and_grad(loss_of, has_aux=True))(
        variables["params"], variables["batch_stats"], batch, KEY
    )
    return config, loss, answer, grads


def test_probabilities_and_loss_are_the_published_ones(golden_step):
    _, loss, answer, _ = golden_step
    expected = numbers("train_step")
    np.testing.assert_allclose(answer.probs, expected["pred"], atol=1e-4)
    np.testing.assert_allclose(loss, expected["loss"], rtol=1e-5)


def test_every_gradient_is_the_published_one(golden_step):
    config, _, _, grads = golden_step
    expected = numbers("train_step")
    ours = tensors(config, "params", grads)
    assert {f"grad/{name}" for name in ours} == {n for n in expected if n.startswith("grad/")}
    for name, grad in ours.items():
        want = expected[f"grad/{name}"]
        scale = np.abs(want).max()
        np.testing.assert_allclose(grad, want, atol=1e-3 * scale, err_msg=name)


def test_running_statistics_are_the_published_ones(golden_step):
    config, _, answer, _ = golden_step
    expected = numbers("train_step")
    ours = tensors(config, "batch_stats", answer.batch_stats)
    np.testing.assert_allclose(
        ours["init_bn.1.running_mean"], expected["running_mean_after"], rtol=1e-5
    )
    # Ten times closer than the biased variance, by which Flax alone would go on, is.
    np.testing.assert_allclose(
        ours["init_bn.1.running_var"], expected["running_var_after"], rtol=1e-5
    )


SMALL = ModelConfig(width=64, depth=1, target_length=32, cache_length=32, num_classes=5)


@functools.cache
def small_variables(config):
    return jax.jit(init_variables, static_argnums=0)(config, jax.random.key(0))


def noise(num_samples, batch_size=2):
    shape = (batch_size, num_samples)
    return 0.1 * np.random.default_rng(0).standard_normal(shape).astype(np.float32)


@functools.cache
def loss_and_grads(config):
    """The objective of a run as a compiled function of weights and batch."""
    return jax.jit(jax.value_and_grad(make_objective(config), has_aux=True))


def answer(config, waveform):
    """What a fresh small model says in training mode."""
    variables = small_variables(config)
    batch = {"waveform": waveform, "target": np.ones((len(waveform), 5), np.float32)}
    stats = variables.get("batch_stats", {})
    (_, said), _ = loss_and_grads(run_config(config))(variables["params"], stats, batch, KEY)
    return said


def test_running_variance_of_a_short_batch_is_pytorchs():
    waveform = noise(2560)  # 2 x 17 frames, where one over or under the count shows
    norm = torch.nn.BatchNorm1d(64, momentum=0.01)
    norm(torch.tensor(np.asarray(log_mel(waveform, SMALL.frontend))))
    stats = answer(SMALL, waveform).batch_stats["input_norm"]
    np.testing.assert_allclose(stats["mean"], norm.running_mean, rtol=1e-4)
    np.testing.assert_allclose(stats["var"], norm.running_var, rtol=1e-4)


def test_logit_models_are_trained_on_probabilities():
    logit = dataclasses.replace(SMALL, pooling="logit")
    probs = answer(logit, noise(10_240)).probs
    np.testing.assert_allclose(probs, answer(SMALL, noise(10_240)).probs, rtol=1e-5)


def test_a_model_without_batch_norm_has_no_statistics():
    config = dataclasses.replace(SMALL, input_norm="fixed")
    assert answer(config, noise(2560)).batch_stats == {}


TX = optax.sgd(0.1)
TARGET = np.eye(5, dtype=np.float32)[:2]
BATCH = {"waveform": noise(10_240), "target": TARGET}


@functools.cache
def compiled_step(config):
    objective = make_objective(run_config(config))
    return jax.jit(partial(train_step, objective=objective, tx=TX, ema_decay=0.0))


def step(config, *, seed=0, number=0):
    """Makes one step from fresh weights, as if it were the run's `number`th."""
    state = init_state(small_variables(config), TX)._replace(step=jnp.asarray(number, jnp.int32))
    return compiled_step(config)(state, BATCH, key=jax.random.key(seed))


def test_a_step_goes_against_the_gradient():
    after, metrics = step(SMALL)
    before = small_variables(SMALL)
    (loss, said), grads = loss_and_grads(run_config(SMALL))(
        before["params"], before["batch_stats"], BATCH, KEY
    )
    jax.tree.map(
        lambda new, old, grad: np.testing.assert_allclose(new, old - 0.1 * grad, atol=1e-5),
        after.params,
        before["params"],
        grads,
    )
    jax.tree.map(
        partial(np.testing.assert_allclose, rtol=1e-6), after.batch_stats, said.batch_stats
    )
    assert int(after.step) == 1
    np.testing.assert_allclose(metrics.loss, loss, rtol=1e-5)
    np.testing.assert_allclose(metrics.grad_norm, optax.tree.norm(grads), rtol=1e-4)


def test_dropout_follows_from_seed_and_step():
    config = dataclasses.replace(SMALL, dropout=0.5)

    def loss(seed, number):
        return float(step(config, seed=seed, number=number)[1].loss)

    assert loss(0, 7) == loss(0, 7)
    assert len({loss(0, 7), loss(0, 8), loss(1, 7)}) == 3


def test_weights_stay_float32_in_a_bfloat16_model():
    config = dataclasses.replace(SMALL, remat=True, dtype="bfloat16")
    after, metrics = step(config)
    assert {x.dtype for x in jax.tree.leaves((after.params, after.batch_stats))} == {
        np.dtype(np.float32)
    }
    np.testing.assert_allclose(metrics.loss, step(SMALL)[1].loss, rtol=0.02)


def test_chunks_have_targets_of_their_own():
    rng = np.random.default_rng(0)
    probs = rng.uniform(0.01, 0.99, (3, 4, 5)).astype(np.float32)
    target = rng.random((4, 3, 5)).astype(np.float32)
    errors = [
        torch.nn.functional.binary_cross_entropy(
            torch.tensor(probs[chunk]), torch.tensor(target[:, chunk])
        ).item()
        for chunk in range(3)
    ]
    own = tagging_loss(jnp.asarray(probs), jnp.asarray(target), per_chunk=True)
    np.testing.assert_allclose(own, np.mean(errors), rtol=1e-5)
    of_mean = torch.nn.functional.binary_cross_entropy(
        torch.tensor(probs.mean(0)), torch.tensor(target.mean(1))
    )
    shared = tagging_loss(jnp.asarray(probs), jnp.asarray(target), per_chunk=False)
    np.testing.assert_allclose(shared, of_mean.item(), rtol=1e-5)


def test_a_stream_that_begins_with_silence_is_trained_as_it_will_be_heard():
    """With silence in every cache, training sees the probabilities that a warm stream gives."""
    config = dataclasses.replace(SMALL, input_norm="fixed")  # No statistics of the batch.
    variables, waveform = small_variables(config), noise(32 * 160 - 160)
    objective = make_objective(run_config(config, silence_share=1.0))
    batch = {"waveform": waveform, "target": TARGET}
    _, said = jax.jit(objective)(variables["params"], {}, batch, KEY)
    streams = StreamingModel(config, make_framing(config, chunk_seconds=0.31))
    probs, _ = streams.step(variables, waveform, streams.init(variables, 2, warmup="silence"))
    np.testing.assert_allclose(said.probs, probs, atol=2e-6)
    cold = make_objective(run_config(config))
    assert np.abs(jax.jit(cold)(variables["params"], {}, batch, KEY)[1].probs - probs).max() > 1e-4


def test_a_frozen_input_norm_hears_as_the_tagger_does_and_stays():
    config = dataclasses.replace(SMALL, input_norm="batch")
    variables, waveform = small_variables(config), noise(32 * 160 - 160)
    stats = jax.tree.map(lambda x: x + 0.3, variables["batch_stats"])
    variables = {"params": variables["params"], "batch_stats": stats}
    batch = {"waveform": waveform, "target": TARGET}
    said = {
        frozen: jax.jit(make_objective(run_config(config, frozen_input_norm=frozen)))(
            variables["params"], stats, batch, KEY
        )[1]
        for frozen in (True, False)
    }
    probs = StreamingModel(config, make_framing(config)).clip(variables, waveform)
    np.testing.assert_allclose(said[True].probs, probs, atol=2e-6)
    jax.tree.map(np.testing.assert_array_equal, said[True].batch_stats, stats)
    assert np.abs(said[False].probs - probs).max() > 1e-4
    with pytest.raises(SatError, match="frozen_input_norm=True"):
        run_config(mae_config(), frozen_input_norm=True)
    with pytest.raises(SatError, match=r"layer_decay=0\.0"):
        run_config(mae_config(), optimizer=OptimizerConfig(learning_rate=1.0, layer_decay=0.0))


def test_an_autoencoder_learns_to_paint():
    encoder = dataclasses.replace(SMALL, cache_length=0, depth=2)
    model = MaeConfig(encoder=encoder, decoder_width=64, decoder_depth=1)
    objective = make_objective(run_config(model))
    variables = jax.jit(init_mae_variables, static_argnums=0)(model, jax.random.key(0))
    tx = optax.adam(3e-3)
    state = init_state(variables, tx)
    step = jax.jit(partial(train_step, objective=objective, tx=tx, ema_decay=0.0, key=KEY))
    batch = {"waveform": clip()[: 4 * 5_000].reshape(4, 5_000)}
    losses = []
    for _ in range(80):
        state, metrics = step(state, batch)
        losses.append(float(metrics.loss))
    assert np.mean(losses[-5:]) < 0.9 * np.mean(losses[:5])
    # Running statistics are those of the same batch 80 times, from zeros.
    np.testing.assert_allclose(
        state.batch_stats["encoder"]["input_norm"]["mean"],
        (1 - 0.99**80) * log_mel(batch["waveform"], SMALL.frontend).mean((0, 2)),
        rtol=1e-3,
    )


def test_the_average_of_the_weights_follows_its_definition():
    config = dataclasses.replace(SMALL, input_norm="fixed")
    objective = make_objective(run_config(config))
    state = init_state(small_variables(config), TX, with_ema=True)
    step = jax.jit(partial(train_step, objective=objective, tx=TX, ema_decay=0.3, key=KEY))
    expected = np.asarray(state.params["head"]["bias"], np.float64)
    for age in range(6):
        state, _ = step(state, BATCH)
        keep = min(0.3, (1 + age) / (10 + age))
        expected = keep * expected + (1 - keep) * np.asarray(state.params["head"]["bias"])
    np.testing.assert_allclose(state.ema_params["head"]["bias"], expected, rtol=1e-5)
    assert state.variables["params"] is state.ema_params


class TestBinaryCrossEntropy:
    def test_is_pytorchs_in_value_and_gradient(self):
        rng = np.random.default_rng(0)
        probs = np.concatenate([rng.random(40), [1e-11, 1e-7, 1 - 1e-6, 1 - 2.0**-24]])
        probs = probs.astype(np.float32)[None]
        target = rng.random(probs.shape).astype(np.float32)
        theirs = torch.tensor(probs.astype(np.float64), requires_grad=True)
        loss = torch.nn.functional.binary_cross_entropy(theirs, torch.tensor(target).double())
        loss.backward()
        ours, grad = jax.value_and_grad(binary_cross_entropy)(jnp.asarray(probs), target)
        np.testing.assert_allclose(ours, loss.item(), rtol=1e-6)
        np.testing.assert_allclose(grad, theirs.grad, rtol=1e-5)

    @pytest.mark.parametrize("target", [0.0, 0.3, 1.0])
    @pytest.mark.parametrize("prob", [0.0, 1.0])
    def test_is_finite_at_the_ends(self, prob, target):
        probs = jnp.full((1, 1), prob)
        loss, grad = jax.value_and_grad(binary_cross_entropy)(probs, jnp.full((1, 1), target))
        assert np.isfinite(loss) and np.isfinite(grad).all()
        assert (loss < 1e-6) == (prob == target)
