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
from flax.traverse_util import flatten_dict
from golden_models import clip, numbers, small_config, small_weights

from sat_jax.config import ModelConfig
from sat_jax.convert.names import to_torch
from sat_jax.frontend import log_mel
from sat_jax.losses import binary_cross_entropy
from sat_jax.models.transformer import AudioTransformer, init_variables
from sat_jax.training.state import init_state
from sat_jax.training.step import make_train_step, training_loss

RNGS = {"dropout": jax.random.key(1), "patchout": jax.random.key(2)}


def tensors(config, collection, tree):
    """A tree of ours under PyTorch's names."""
    flat = flatten_dict({collection: tree}, sep="/")
    return to_torch({name: np.asarray(x) for name, x in flat.items()}, config)


@pytest.fixture(scope="module")
def golden_step():
    """Loss, answer and gradients of ours on the golden batch."""
    config, variables = small_config("sat_mean_2s"), small_weights("sat_mean_2s")
    waves, numbers_of = numbers("frontend"), numbers("train_step")
    names = ("wave_noise", "wave_chirp", "wave_burst")
    waveform = np.stack([*(waves[name][:64_000] for name in names), clip()[:64_000]])
    loss_of = partial(training_loss, model=AudioTransformer(config), rngs=RNGS)
    (loss, answer), grads = jax.jit(jax.value_and_grad(loss_of, has_aux=True))(
        variables["params"], variables["batch_stats"], waveform, numbers_of["target"]
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
    """The training loss of a model as a compiled function of weights and batch."""
    loss_of = partial(training_loss, model=AudioTransformer(config), rngs=RNGS)
    return jax.jit(jax.value_and_grad(loss_of, has_aux=True))


def answer(config, waveform):
    """What a fresh small model says in training mode."""
    variables = small_variables(config)
    target = np.ones((len(waveform), 5), np.float32)
    stats = variables.get("batch_stats", {})
    (_, said), _ = loss_and_grads(config)(variables["params"], stats, waveform, target)
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


@functools.cache
def compiled_step(config):
    return make_train_step(AudioTransformer(config), TX)


def step(config, *, seed=0, number=0):
    """Makes one step from fresh weights, as if it were the run's `number`th."""
    state = init_state(small_variables(config), TX)._replace(step=jnp.asarray(number, jnp.int32))
    return compiled_step(config)(state, noise(10_240), TARGET, key=jax.random.key(seed))


def test_a_step_goes_against_the_gradient():
    after, metrics = step(SMALL)
    before = small_variables(SMALL)
    (loss, said), grads = loss_and_grads(SMALL)(
        before["params"], before["batch_stats"], noise(10_240), TARGET
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
