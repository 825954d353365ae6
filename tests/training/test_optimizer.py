"""The optimiser: weight decay, learning rate schedule, clipping."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax.traverse_util import flatten_dict

from sat_jax.config import MaeConfig, ModelConfig
from sat_jax.errors import SatError
from sat_jax.training.config import OptimizerConfig
from sat_jax.training.optimizer import (
    decay_mask,
    layer_scales,
    make_optimizer,
    make_schedule,
)
from sat_jax.weights.warm_start import fresh_variables

SAT = ModelConfig(width=64, depth=1, target_length=32, cache_length=32, layer_scale=0.1)
CLIP = ModelConfig(width=64, depth=1, target_length=32, pooling="token")
FREE = ("bias", "scale", "gamma", "pos_embed", "cls_token", "mask_token")


@pytest.mark.parametrize("config", [SAT, CLIP, MaeConfig(encoder=CLIP, decoder_width=64)])
def test_only_matrices_decay(config):
    params = jax.eval_shape(lambda key: fresh_variables(config, key), jax.random.key(0))["params"]
    mask = flatten_dict(decay_mask(params), sep="/")
    assert {name for name, decays in mask.items() if not decays} == {
        name for name in mask if name.endswith(FREE)
    }
    # The others are the kernels of patch embedding, attention, MLP and head.
    assert all(flatten_dict(params, sep="/")[n].ndim == 2 for n, decays in mask.items() if decays)
    assert any(mask.values())


def test_the_learning_rate_rises_linearly_and_falls_as_a_cosine():
    config = OptimizerConfig(learning_rate=2.0, warmup_fraction=0.1, final_fraction=0.1)
    # A tenth of 97 updates is rounded to 10.
    rates = np.array([make_schedule(config, 97)(count) for count in range(97)])
    np.testing.assert_allclose(rates[:10], np.arange(1, 11) / 10 * 2.0, rtol=1e-6)
    share = np.arange(1, 88) / 87
    cosine = 0.1 + 0.9 * (1 + np.cos(np.pi * share)) / 2
    np.testing.assert_allclose(rates[10:], 2.0 * cosine, rtol=1e-5)
    np.testing.assert_allclose(rates[-1], 0.2, rtol=1e-6)


@pytest.mark.parametrize(
    ("warmup_fraction", "rates"),
    [(0.0, [0.2]), (0.5, [2.0, 0.2]), (0.7, [1.0, 2.0, 0.2]), (0.7, [2.0])],
)
def test_schedules_of_the_shortest_runs(warmup_fraction, rates):
    config = OptimizerConfig(learning_rate=2.0, warmup_fraction=warmup_fraction, final_fraction=0.1)
    schedule = make_schedule(config, len(rates))
    np.testing.assert_allclose([schedule(count) for count in range(len(rates))], rates, rtol=1e-6)


def test_without_warm_up_it_starts_near_the_maximum():
    schedule = make_schedule(OptimizerConfig(learning_rate=1.0), 1000)
    assert 0.99 < schedule(0) <= 1.0 and abs(schedule(999)) < 1e-6


def weights_after_each(config, grads, start):
    """Returns the weights after each of the gradients."""
    tx = make_optimizer(config, len(grads))
    params = {"layer": {"kernel": jnp.asarray(start), "bias": jnp.asarray(start)}}
    memory, course = tx.init(params), []
    for grad in grads:
        updates, memory = tx.update({"layer": {"kernel": grad, "bias": grad}}, memory, params)
        params = jax.tree.map(jnp.add, params, updates)
        course.append(params["layer"])
    return course


def test_lower_layers_have_lower_learning_rates():
    config = ModelConfig(width=64, depth=3, target_length=32)
    params = jax.eval_shape(lambda key: fresh_variables(config, key), jax.random.key(0))["params"]
    shares = flatten_dict(layer_scales(params, 0.5), sep="/")
    expected = {"blocks_0": 3, "blocks_1": 2, "blocks_2": 1}
    expected |= dict.fromkeys(["patch_embed", "time_pos_embed", "freq_pos_embed", "input_norm"], 4)
    for name, share in shares.items():
        assert share == 0.5 ** expected.get(name.split("/")[0], 0), name
    alone = flatten_dict(layer_scales(params, 0.0), sep="/")
    learning = {name.split("/")[0] for name, share in alone.items() if share}
    assert learning == {"norm", "head_norm", "head"} and set(alone.values()) == {0.0, 1.0}
    # The update shrinks by the same factor.
    grads = {"blocks_0": {"kernel": jnp.ones((2, 2))}, "head": {"kernel": jnp.ones((2, 2))}}

    def updates_of(decay):
        tx = make_optimizer(OptimizerConfig(learning_rate=0.5, layer_decay=decay), 10)
        updates, _ = tx.update(grads, tx.init(grads), grads)
        return updates["blocks_0"]["kernel"], updates["head"]["kernel"]

    plain, _ = updates_of(1.0)
    for decay in (1.0, 0.5, 0.0):
        lower, head = updates_of(decay)
        np.testing.assert_allclose(lower, decay * plain, rtol=1e-6)
        np.testing.assert_allclose(head, plain, rtol=1e-6)


def test_gradients_of_frozen_layers_do_not_clip_those_of_the_head():
    tx = make_optimizer(OptimizerConfig(learning_rate=1.0, layer_decay=0.0, clip_norm=1.0), 10)
    weights = {"blocks_0": {"kernel": jnp.zeros(1)}, "head": {"kernel": jnp.zeros(1)}}
    courses = []
    for loud in (0.0, 100.0):  # AdamW ignores the size of gradients, except for changes of it.
        params, memory = weights, tx.init(weights)
        for grad in (0.0, loud, 0.0):
            grads = {
                "blocks_0": {"kernel": jnp.full(1, grad)},
                "head": {"kernel": jnp.full(1, 0.5)},
            }
            updates, memory = tx.update(grads, memory, params)
            params = jax.tree.map(jnp.add, params, updates)
        courses.append(params)
    np.testing.assert_array_equal(courses[0]["head"]["kernel"], courses[1]["head"]["kernel"])
    assert courses[1]["head"]["kernel"] < -1 and courses[1]["blocks_0"]["kernel"] == 0


def test_accumulated_steps_make_the_update_of_their_mean():
    rng = np.random.default_rng(0)
    grads = rng.standard_normal((6, 3)).astype(np.float32)
    weights = {"kernel": jnp.ones(3)}
    slow = make_optimizer(OptimizerConfig(learning_rate=0.1, accumulate=3), 6)
    fast = make_optimizer(OptimizerConfig(learning_rate=0.1), 2)
    ours, memory = weights, slow.init(weights)
    for grad in grads:
        updates, memory = slow.update({"kernel": grad}, memory, ours)
        ours = jax.tree.map(jnp.add, ours, updates)
    theirs, memory = weights, fast.init(weights)
    for mean in (grads[:3].mean(0), grads[3:].mean(0)):
        updates, memory = fast.update({"kernel": mean}, memory, theirs)
        theirs = jax.tree.map(jnp.add, theirs, updates)
    np.testing.assert_allclose(ours["kernel"], theirs["kernel"], rtol=1e-6)


@pytest.mark.parametrize(
    ("clip_norm", "b1", "b2", "eps"), [(0.0, 0.9, 0.999, 1e-8), (1.0, 0.8, 0.95, 0.1)]
)
def test_updates_are_those_of_pytorch(clip_norm, b1, b2, eps):
    rng = np.random.default_rng(0)
    grads = rng.standard_normal((5, 3, 4)).astype(np.float32)
    start = rng.standard_normal((3, 4)).astype(np.float32)
    moments = {"b1": b1, "b2": b2, "eps": eps, "clip_norm": clip_norm}
    config = OptimizerConfig(learning_rate=0.1, weight_decay=0.5, final_fraction=1.0, **moments)
    kernel, bias = (torch.nn.Parameter(torch.tensor(start)) for _ in range(2))
    groups = [{"params": [kernel], "weight_decay": 0.5}, {"params": [bias], "weight_decay": 0.0}]
    adamw = torch.optim.AdamW(groups, lr=0.1, betas=(b1, b2), eps=eps)
    for grad, ours in zip(grads, weights_after_each(config, grads, start), strict=True):
        kernel.grad, bias.grad = torch.tensor(grad), torch.tensor(grad)
        if clip_norm:
            torch.nn.utils.clip_grad_norm_([kernel, bias], clip_norm)
        adamw.step()
        np.testing.assert_allclose(ours["kernel"], kernel.detach(), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(ours["bias"], bias.detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("learning_rate", 0.0),
        ("learning_rate", float("nan")),
        ("warmup_fraction", 1.0),
        ("final_fraction", 1.5),
        ("weight_decay", -0.1),
        ("clip_norm", -1.0),
        ("b1", 1.0),
    ],
)
def test_values_out_of_range_are_refused(field, value):
    with pytest.raises(SatError, match=f"{field}={value}"):
        OptimizerConfig(**({"learning_rate": 1.0} | {field: value}))
