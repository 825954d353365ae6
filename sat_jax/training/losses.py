"""Losses as pure functions."""

import jax
import jax.numpy as jnp
import numpy as np

PATCH_EPSILON = 1e-6
"""Added to a patch's variance, so that silence causes no division by zero."""


def normalize_patches(patches: jax.Array) -> jax.Array:
    """Normalises each patch to mean 0 and (unbiased) variance 1, as published: [..., 256]."""
    mean = patches.mean(-1, keepdims=True)
    variance = patches.var(-1, keepdims=True, ddof=1)
    return (patches - mean) / jnp.sqrt(variance + PATCH_EPSILON)


def mae_loss(
    prediction: jax.Array, target: jax.Array, *, mask: jax.Array, normalize_target: bool
) -> jax.Array:
    """Returns the mean squared error of the masked patches (He et al. 2022, arXiv 2111.06377).

    Args:
      prediction: float32 [b, n, 256].
      target: float32 [b, n, 256], patches of the raw dB log-mel.
      mask: [b, n], 1 for masked patches, of which there is at least one.
      normalize_target: whether each target patch is normalised.

    Returns:
      float32 scalar.
    """
    if normalize_target:
        target = normalize_patches(target)
    error = jnp.square(prediction - target).mean(-1)
    return (error * mask).sum() / mask.sum()


# The largest and smallest float32 in (0, 1) with finite logarithms below.
_ALMOST_ONE = 1.0 - 2.0**-24
_ALMOST_ZERO = float(np.finfo(np.float32).tiny)


def binary_cross_entropy(probs: jax.Array, target: jax.Array) -> jax.Array:
    """Returns the binary cross-entropy of probabilities, averaged over examples and classes.

    Probabilities of exactly 0 and 1, from saturated sigmoids, are replaced by the next float32, so
    loss and gradients stay finite. Other probabilities are not changed.

    Args:
      probs: float32 [b, y] in [0, 1].
      target: float32 [b, y] in [0, 1].

    Returns:
      float32 scalar, at least 0.
    """
    present = jnp.log(jnp.where(probs < _ALMOST_ZERO, _ALMOST_ZERO, probs))
    absent = jnp.log1p(-jnp.where(probs > _ALMOST_ONE, _ALMOST_ONE, probs))
    return -(target * present + (1.0 - target) * absent).mean()
