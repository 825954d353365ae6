"""The affine layer, its faster product for few rows, and the switch of that product."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sat_jax.models.few_rows import FEW_ROWS, FEWEST_VALUES
from sat_jax.models.linear import Linear
from sat_jax.models.portable import portable
from tests.support.jaxprs import equations


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
    exact = {"rtol": 1e-5, "atol": 1e-4}
    np.testing.assert_allclose(y, (x @ kernel.T + bias)[..., skip:], **exact)
    np.testing.assert_allclose(grad_x, weights @ kernel[skip:], **exact)
    flat = weights.reshape(-1, 10 - skip), x.reshape(-1, shape[-1])
    found = grads["params"]
    np.testing.assert_allclose(found["kernel"][skip:], flat[0].T @ flat[1], **exact)
    np.testing.assert_allclose(found["bias"][skip:], flat[0].sum(0), **exact)
    assert not found["kernel"][:skip].any() and not found["bias"][:skip].any()


@pytest.mark.parametrize(
    ("rows", "width", "dtype", "is_few"),
    [
        (48, 192, "float32", True),  # a chunk of SAT_T_2s
        (49, 384, "float32", True),  # a chunk of SAT_S_2s, with its cls token
        (48, 192, "bfloat16", False),
        (8, 64, "float32", False),
        (50, 192, "float32", False),
        (256, 192, "float32", False),
    ],
)
def test_few_rows_are_multiplied_kernel_first_unless_switched_off(rows, width, dtype, is_few):
    layer = Linear(features=10, dtype=dtype)
    x = jnp.zeros((1, rows, width))
    variables = layer.init(jax.random.key(0), x)
    apply = jax.jit(layer.apply)  # Traced again when the switch changes.

    def primitives():
        return {equation.primitive.name for equation in equations(apply, variables, x)}

    assert ("conv_general_dilated" in primitives()) == is_few
    with portable(True):
        assert not primitives() & {"conv_general_dilated", "platform_index", "custom_jvp_call"}
    assert (rows in FEW_ROWS and rows * width >= FEWEST_VALUES) >= is_few


def test_fresh_matrices_are_as_wide_as_pytorch_s():
    """PyTorch cuts a truncated normal of deviation 0.02 off at 2, which hardly cuts anything."""
    kernel = np.asarray(
        Linear(1000, "float32").init(jax.random.key(0), jnp.zeros((1, 1000)))["params"]["kernel"]
    )
    assert abs(kernel.std() / 0.02 - 1) < 0.005
    shares = [np.mean(np.abs(kernel) > deviations * 0.02) for deviations in (1, 2, 3)]
    np.testing.assert_allclose(shares, [0.3173, 0.0455, 0.0027], atol=0.002)
