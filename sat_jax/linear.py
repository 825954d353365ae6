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
        kernel, bias = self.weights(x.shape[-1])
        return _linear(x.astype(self.dtype), kernel[skip:], bias[skip:])

    @nn.compact
    def weights(self, width: int) -> tuple[jax.Array, jax.Array]:
        """Kernel [features, width] and bias [features], in the type of the computation."""
        shape = (self.features, width)
        kernel = self.param("kernel", nn.initializers.truncated_normal(LINEAR_STD), shape)
        bias = self.param("bias", nn.initializers.zeros, shape[:1])
        return kernel.astype(self.dtype), bias.astype(self.dtype)


def _linear(x: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
    contract_last = (((x.ndim - 1,), (1,)), ((), ()))
    product = jax.lax.dot_general(
        x, kernel, contract_last, precision=product_precision(kernel.dtype)
    )
    return product + bias


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def linear_twice(
    x: jax.Array, still: jax.Array, kernel: jax.Array, bias: jax.Array, skip: int
) -> tuple[jax.Array, jax.Array]:
    """`_linear` of x and, without the first `skip` outputs, of `still`: one product for both.

    Args:
      x: [b, k, n, d].
      still: [b, k - 1, n, d], the same values as the first of x, whose gradients go elsewhere.
      kernel: [features, d].
      bias: [features].
      skip: outputs.

    Returns:
      [b, k, n, features] and [b, k - 1, n, features - skip].
    """
    del still
    y = _linear(x, kernel, bias)
    return y, y[:, :-1, :, skip:]


def _forward(x, still, kernel, bias, skip):  # type: ignore[no-untyped-def]
    return linear_twice(x, still, kernel, bias, skip), (x, kernel)


def _backward(skip, saved, grads):  # type: ignore[no-untyped-def]
    (x, kernel), (grad, grad_still) = saved, grads
    product = functools.partial(jnp.einsum, precision=product_precision(kernel.dtype))
    both = grad + jnp.pad(grad_still, ((0, 0), (0, 1), (0, 0), (skip, 0)))
    return (
        product("bkny,yd->bknd", grad, kernel),
        product("bkny,yd->bknd", grad_still, kernel[skip:]),
        product("bkny,bknd->yd", both, x),
        both.sum((0, 1, 2)),
    )


linear_twice.defvjp(_forward, _backward)
