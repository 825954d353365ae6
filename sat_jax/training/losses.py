"""Training objectives as pure functions."""

import jax
import jax.numpy as jnp
import numpy as np

PATCH_EPSILON = 1e-6
"""Added to a patch's variance, so that silence does not divide by zero."""


def normalize_patches(patches: jax.Array) -> jax.Array:
    """Each patch zero-mean and unit-variance (unbiased, as published): [..., 256] -> same."""
    mean = patches.mean(-1, keepdims=True)
    variance = patches.var(-1, keepdims=True, ddof=1)
    return (patches - mean) / jnp.sqrt(variance + PATCH_EPSILON)


def mae_loss(
    prediction: jax.Array, target: jax.Array, *, mask: jax.Array, normalize_target: bool
) -> jax.Array:
    """Mean squared error over the hidden patches (masked autoencoders, He et al. 2022, eq. 1).

    Args:
      prediction: float32 [b, n, 256].
      target: float32 [b, n, 256], patches of the raw dB log-mel.
      mask: [b, n], 1 where the encoder saw nothing; at least one patch is hidden.
      normalize_target: whether targets are normalised patch by patch.

    Returns:
      float32 scalar.
    """
    if normalize_target:
        target = normalize_patches(target)
    error = jnp.square(prediction - target).mean(-1)
    return (error * mask).sum() / mask.sum()


# The largest and smallest float32 inside (0, 1) whose logarithms below are finite.
_ALMOST_ONE = 1.0 - 2.0**-24
_ALMOST_ZERO = float(np.finfo(np.float32).tiny)


def binary_cross_entropy(probs: jax.Array, target: jax.Array) -> jax.Array:
    """Binary cross-entropy of probabilities, averaged over examples and classes.

    Probabilities of exactly 0 and 1, which saturated sigmoids give, count as the float32 next to
    them: loss and gradients stay finite, and those of all other probabilities are untouched.

    Args:
      probs: float32 [b, y] in [0, 1]; for a model that answers in pieces, the mean of the
        pieces' probabilities.
      target: float32 [b, y] in [0, 1].

    Returns:
      float32 scalar, at least 0.
    """
    present = jnp.log(jnp.where(probs < _ALMOST_ZERO, _ALMOST_ZERO, probs))
    absent = jnp.log1p(-jnp.where(probs > _ALMOST_ONE, _ALMOST_ONE, probs))
    return -(target * present + (1.0 - target) * absent).mean()
