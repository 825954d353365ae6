"""Scaled dot-product attention over a masked past (floor 1)."""

import jax
import jax.numpy as jnp

from sat_jax.config import HEAD_WIDTH


def split_heads(x: jax.Array) -> jax.Array:
    """[b, n, d] -> [b, n, h, d / h] with heads of 64 features."""
    return x.reshape(*x.shape[:-1], -1, HEAD_WIDTH)


def attention_weights(query: jax.Array, key: jax.Array, key_is_real: jax.Array | None) -> jax.Array:
    """softmax(q·kᵀ / √64) in float32.

    Args:
      query: [b, n, h, 64].
      key: [b, m, h, 64].
      key_is_real: bool [b, m]; keys that are not real get weight 0. None means all are.

    Returns:
      float32 [b, h, n, m]; every row sums to 1.
    """
    scores = jnp.einsum("bnhc,bmhc->bhnm", query, key, preferred_element_type=jnp.float32)
    scores = scores * HEAD_WIDTH**-0.5
    if key_is_real is not None:
        scores = jnp.where(key_is_real[:, None, None, :], scores, -jnp.inf)
    return jax.nn.softmax(scores, axis=-1)


def attend(weights: jax.Array, value: jax.Array) -> jax.Array:
    """Weighted sum of values: [b, h, n, m], [b, m, h, 64] -> [b, n, d]."""
    mixed = jnp.einsum("bhnm,bmhc->bnhc", weights.astype(value.dtype), value)
    return mixed.reshape(*mixed.shape[:2], -1)
