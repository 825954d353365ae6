"""The affine layer, and one whose gradients part ways."""

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from sat_jax.models.attention import product_precision

FEW_ROWS = [rows + cls_token for rows in range(8, 97, 8) for cls_token in (0, 1)]
FEWEST_VALUES = 4096
"""Such inputs, those of most streaming steps, CPUs multiply faster in a way of their own: see
benchmarks/README.md."""

LINEAR_STD = 0.02
"""Of the normal distribution that fresh matrices come from."""

# PyTorch's truncated normal is cut off at ±2 whatever its deviation, JAX's at two deviations, which
# would leave 0.88 of this one.
LINEAR_INIT = nn.initializers.truncated_normal(
    LINEAR_STD, lower=-2 / LINEAR_STD, upper=2 / LINEAR_STD
)


class Linear(nn.Module):
    """x·kernelᵀ + bias, the kernel stored [out, in] as in PyTorch.

    Not `nn.Dense`, whose kernel is [in, out]: on CPUs the few rows of a chunk are multiplied
    faster by rows of weights (products of a whole model: 1.0 to 1.25 times, the wider the more).

    Attributes:
      features: outputs.
      dtype: precision of the computation, see `product_precision`; weights are float32.
    """

    features: int
    dtype: str

    def __call__(self, x: jax.Array, *, skip: int = 0) -> jax.Array:
        """[..., d] -> [..., features - skip], without the first `skip` outputs."""
        kernel, bias = (w.astype(self.dtype) for w in self.weights(x.shape[-1]))
        return _linear(x.astype(self.dtype), kernel, bias, skip)

    @nn.compact
    def weights(self, width: int) -> tuple[jax.Array, jax.Array]:
        """Kernel [features, width] and bias [features], as stored."""
        shape = (self.features, width)
        kernel = self.param("kernel", LINEAR_INIT, shape)
        return kernel, self.param("bias", nn.initializers.zeros, shape[:1])


def _linear(x: jax.Array, kernel: jax.Array, bias: jax.Array, skip: int = 0) -> jax.Array:
    few = math.prod(x.shape[:-1]) in FEW_ROWS and x.size >= FEWEST_VALUES
    product = _product_of_few_rows if few and x.dtype == jnp.float32 else _product
    return product(x, kernel, skip) + bias[skip:]


def _product(x: jax.Array, kernel: jax.Array, skip: int) -> jax.Array:
    contract_last = (((x.ndim - 1,), (1,)), ((), ()))
    precision = product_precision(kernel.dtype)
    return jax.lax.dot_general(x, kernel[skip:], contract_last, precision=precision)


# Gradients are made of plain products: those of a convolution would stay convolutions, which CPUs
# are slow at.
@functools.partial(jax.custom_jvp, nondiff_argnums=(2,))
def _product_of_few_rows(x: jax.Array, kernel: jax.Array, skip: int) -> jax.Array:
    """`_product` in which CPUs put the kernel first."""
    on_cpus, elsewhere = (functools.partial(way, skip=skip) for way in (_kernel_first, _product))
    return jax.lax.platform_dependent(x, kernel, cpu=on_cpus, default=elsewhere)


@_product_of_few_rows.defjvp
def _derivative(skip, primals, tangents):  # type: ignore[no-untyped-def]
    (x, kernel), (d_x, d_kernel) = primals, tangents
    derivative = _product(d_x, kernel, skip) + _product(x, d_kernel, skip)
    return _product_of_few_rows(x, kernel, skip), derivative


def _kernel_first(x: jax.Array, kernel: jax.Array, skip: int) -> jax.Array:
    """The same by a convolution of the kernel's rows with filters of length one, the rows of x.

    XLA for CPUs makes a product of it again, and by another library than those it makes of other
    products. A part of a kernel would be copied first, which takes longer than to multiply by all.
    The cls token, one row over a multiple of eight and the first of one stream, would take a third
    of the time, so it goes by itself.
    """
    rows = x.reshape(-1, x.shape[-1])
    odd = len(rows) % 8
    precision = product_precision(kernel.dtype)
    product = jax.lax.conv_general_dilated(
        kernel[None],
        rows[odd:].T[None],
        window_strides=(1,),
        padding="VALID",
        dimension_numbers=("NWC", "WIO", "NWC"),
        precision=precision,
    )[0]
    if odd:
        first = jnp.matmul(kernel, rows[:odd].T, precision=precision)
        product = jnp.concatenate([first, product], axis=1)
    return product[skip:].T.reshape(*x.shape[:-1], -1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def linear_twice(
    x: jax.Array, kernel: jax.Array, bias: jax.Array, skip: int
) -> tuple[jax.Array, jax.Array]:
    """x·kernelᵀ + bias, and the part of it that later pieces find, by one product.

    Args:
      x: [b, k, n, d].
      kernel: [features, d].
      bias: [features].
      skip: outputs that later pieces do not look for, the first ones.

    Returns:
      [b, k, n, features]; and of all pieces but the last [b, k - 1, n, features - skip], through
      which gradients reach kernel and bias, and not x: first ones, in reverse mode.
    """
    y = _linear(x, kernel, bias)
    return y, y[:, :-1, :, skip:]


def _forward(x, kernel, bias, skip):  # type: ignore[no-untyped-def]
    return linear_twice(x, kernel, bias, skip), (x, kernel)


def _backward(skip, saved, grads):  # type: ignore[no-untyped-def]
    (x, kernel), (grad, grad_found) = saved, grads
    product = functools.partial(jnp.einsum, precision=product_precision(kernel.dtype))
    both = grad + jnp.pad(grad_found, ((0, 0), (0, 1), (0, 0), (skip, 0)))
    return (
        product("bkny,yd->bknd", grad, kernel),
        product("bkny,bknd->yd", both, x),
        both.sum((0, 1, 2)),
    )


linear_twice.defvjp(_forward, _backward)
