import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sat_jax.models.linear import FEW_ROWS, FEWEST_VALUES, Linear
from sat_jax.models.registry import model_config
from sat_jax.models.transformer import AudioTransformer
from sat_jax.streaming.framing import make_framing
from sat_jax.streaming.step import init_stream, scan_chunks, stream_step
from sat_jax.weights.warm_start import fresh_variables


@pytest.mark.parametrize(
    ("shape", "skip"),
    [
        ((1, 24, 192), 0),
        ((2, 4, 512), 3),
        ((1, 49, 192), 3),
        ((1, 49, 192), 0),
        ((2, 24, 128), 3),
        ((1, 512), 0),
        ((3, 7), 3),
    ],
)
def test_products_and_their_gradients(shape, skip):
    rng = np.random.default_rng(0)
    x, kernel, bias = (rng.standard_normal(size) for size in (shape, (10, shape[-1]), (10,)))
    weights = rng.standard_normal((*shape[:-1], 10 - skip))
    variables = {"params": {"kernel": jnp.float32(kernel), "bias": jnp.float32(bias)}}
    layer = Linear(features=10, dtype="float32")

    def total(variables, x):
        y = layer.apply(variables, x, skip=skip)
        return (y * weights).sum(), y

    program = jax.jit(jax.value_and_grad(total, (0, 1), has_aux=True))
    (_, y), (grads, grad_x) = program(variables, jnp.float32(x))
    assert " convolution(" not in program.lower(variables, jnp.float32(x)).compile().as_text()
    exact = {"rtol": 1e-5, "atol": 1e-4}
    np.testing.assert_allclose(y, (x @ kernel.T + bias)[..., skip:], **exact)
    np.testing.assert_allclose(grad_x, weights @ kernel[skip:], **exact)
    flat = weights.reshape(-1, 10 - skip), x.reshape(-1, shape[-1])
    found = grads["params"]
    np.testing.assert_allclose(found["kernel"][skip:], flat[0].T @ flat[1], **exact)
    np.testing.assert_allclose(found["bias"][skip:], flat[0].sum(0), **exact)
    assert not found["kernel"][:skip].any() and not found["bias"][:skip].any()


def test_cpus_multiply_where_a_step_has_few_rows():
    """A convolution that XLA leaves as it is takes twice as long as a product."""
    config = dataclasses.replace(model_config("SAT_T_2s"), depth=2)
    model, variables = AudioTransformer(config), fresh_variables(config, jax.random.key(0))
    framing = make_framing(config, "chunk")
    state = init_stream(model, variables, 1, framing=framing)
    for run, chunks in ((stream_step, ()), (scan_chunks, (3,))):
        program = jax.jit(run, static_argnums=0, static_argnames="framing")
        heard = {"samples": jnp.zeros((*chunks, 1, framing.hop)), "state": state}
        text = program.lower(model, variables, **heard, framing=framing).compile().as_text()
        products = re.findall(r"= f32\[(\d+),48\]\S* dot\(", text)
        assert 48 in FEW_ROWS and 48 * config.width >= FEWEST_VALUES
        # Of each block, and keys and values of the first one's past.
        assert sorted(map(int, products)) == sorted([192, *[192, 192, 576, 768] * 2, 576])
        assert " convolution(" not in text


def test_fresh_matrices_are_as_wide_as_pytorch_s():
    """Whose truncated normal of deviation 0.02 is cut off at 2: a normal distribution, that is."""
    kernel = np.asarray(
        Linear(1000, "float32").init(jax.random.key(0), jnp.zeros((1, 1000)))["params"]["kernel"]
    )
    assert abs(kernel.std() / 0.02 - 1) < 0.005
    shares = [np.mean(np.abs(kernel) > deviations * 0.02) for deviations in (1, 2, 3)]
    np.testing.assert_allclose(shares, [0.3173, 0.0455, 0.0027], atol=0.002)
