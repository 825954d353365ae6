"""The affine layer, and one whose gradients part ways (floor 1)."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from sat_jax.attention import product_precision

LINEAR_STD = 0.02
"""Of the normal distribution, cut off at twice that, that fresh matrices come from."""


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
        kernel, bias = (w[skip:].astype(self.dtype) for w in self.weights(x.shape[-1]))
        return _linear(x.astype(self.dtype), kernel, bias)

    @nn.compact
    def weights(self, width: int) -> tuple[jax.Array, jax.Array]:
        """Kernel [features, width] and bias [features], as stored."""
        shape = (self.features, width)
        kernel = self.param("kernel", nn.initializers.truncated_normal(LINEAR_STD), shape)
        return kernel, self.param("bias", nn.initializers.zeros, shape[:1])


def _linear(x: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
    contract_last = (((x.ndim - 1,), (1,)), ((), ()))
    product = jax.lax.dot_general(
        x, kernel, contract_last, precision=product_precision(kernel.dtype)
    )
    return product + bias


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
