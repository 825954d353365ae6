"""Counts from a config against the traced step and real weights."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sat_jax.config import FrontendConfig, ModelConfig
from sat_jax.models.transformer import init_variables
from sat_jax.profile.compiled_step import step_with_shapes
from sat_jax.profile.costs import count_multiply_adds, count_parameters
from sat_jax.streaming.framing import make_framing
from tests.support.jaxpr_flops import count_matmul_flops

SAT = ModelConfig(width=64, depth=3, num_classes=5, target_length=32, cache_length=32)
CLIP = ModelConfig(width=64, depth=2, num_classes=5, target_length=64, pad_last=True)


def changed(config, **changes):
    return dataclasses.replace(config, **changes)


@pytest.mark.parametrize(
    ("config", "seconds"),
    [
        pytest.param(SAT, 0.33, id="chunk as long as a piece"),
        pytest.param(SAT, 0.16, id="chunk shorter than the cache"),
        pytest.param(SAT, 1.1, id="loop over pieces"),
        pytest.param(changed(SAT, pad_last=True), 0.4, id="shorter last piece"),
        pytest.param(changed(SAT, cache_length=80, pooling="token"), 0.33, id="longer cache"),
        pytest.param(changed(SAT, pooling="dm", layer_scale=0.1), 0.33, id="dm pooling"),
        pytest.param(changed(SAT, dtype="bfloat16", mlp_ratio=3.0), 0.33, id="bfloat16"),
        pytest.param(changed(SAT, frontend=FrontendConfig(n_mels=128)), 0.33, id="128 mel bins"),
        pytest.param(CLIP, 0.33, id="no cache"),
        pytest.param(changed(CLIP, pooling="logit"), 0.7, id="more frames than positions"),
        pytest.param(changed(CLIP, pooling="token"), 1.5, id="padded to a whole piece"),
    ],
)
def test_multiply_adds_equal_those_of_the_traced_step(config, seconds):
    framing, batch_size = make_framing(config, chunk_seconds=seconds), 3
    step, arguments = step_with_shapes(config, framing, batch_size)
    traced = count_matmul_flops(jax.make_jaxpr(step)(*arguments).jaxpr)
    assert 2 * batch_size * count_multiply_adds(config, framing).total == traced


def test_parameters_equal_those_of_new_weights():
    config = changed(SAT, pooling="token", layer_scale=0.1)
    variables = jax.jit(init_variables, static_argnums=0)(config, jax.random.key(0))
    leaves = jax.tree.leaves(variables["params"])
    assert count_parameters(config) == sum(leaf.size for leaf in leaves)


# The counter of traced programs that the tests above rely on.


def test_matrix_products_and_branches():
    def program(x, w):
        product = jax.jit(jnp.matmul)(x, w)
        return jax.lax.cond(product.sum() > 0, lambda y: y @ w.T, lambda y: y[:, :4], product)

    jaxpr = jax.make_jaxpr(program)(np.ones((2, 3, 4)), np.ones((4, 4)))
    assert count_matmul_flops(jaxpr.jaxpr) == 2 * 2 * (2 * 3 * 4 * 4)


def test_loops_count_as_often_as_they_run():
    def program(x):
        return jax.lax.scan(lambda y, w: (y @ w, y.sum()), x, jnp.ones((7, 4, 4)))

    jaxpr = jax.make_jaxpr(program)(np.ones((2, 4)))
    assert count_matmul_flops(jaxpr.jaxpr) == 7 * 2 * (2 * 4 * 4)


def test_products_in_while_loops_are_refused():
    def program(x):
        return jax.lax.while_loop(lambda y: y.sum() < 9, lambda y: y @ y, x)

    with pytest.raises(ValueError):
        count_matmul_flops(jax.make_jaxpr(program)(np.ones((2, 2))).jaxpr)
