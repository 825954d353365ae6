"""Learned position embeddings: those of cached tokens, and resizing."""

import jax
import jax.numpy as jnp
import numpy as np


def past_positions(
    time_pos_embed: jax.Array,
    freq_pos_embed: jax.Array,
    num_real: jax.Array,
    num_slots: int,
) -> jax.Array:
    """Returns the positions that layer 0 adds, at every call once more, to its cached tokens.

    The newest token is in the last slot. With m real tokens and f rows, the published code takes
    token i as row i // (m / f) and step i mod (m / f), and gives it one of the last m / f time
    positions. Quirk, kept: with chunks shorter than the cache, or with a cls token, the cached
    tokens do not form such a grid, but are treated as one.

    Args:
      time_pos_embed: [t, d], all time positions of the model.
      freq_pos_embed: [f, d].
      num_real: int32 [b], cached tokens that are real.
      num_slots: m, slots in the cache.

    Returns:
      [b, m, d]; zeros in slots without a real token.
    """
    steps = num_real[:, None] // freq_pos_embed.shape[0]  # [b, 1]
    token = jnp.arange(num_slots)[None, :] - (num_slots - num_real[:, None])  # [b, m]
    safe_steps = jnp.maximum(steps, 1)
    row = token // safe_steps
    column = time_pos_embed.shape[0] - steps + token % safe_steps
    positions = _rows(time_pos_embed, column) + _rows(freq_pos_embed, row)
    return jnp.where((token >= 0)[..., None], positions, 0.0)


def _rows(embedding: jax.Array, index: jax.Array) -> jax.Array:
    """Returns rows of [n, d]; indices outside of it mean the nearest row."""
    # Exporters know this clip, unlike that of `take`.
    index = jnp.clip(index, 0, embedding.shape[0] - 1)
    return jnp.asarray(embedding).at[index].get(mode="promise_in_bounds")


def resize_positions(embedding: np.ndarray, length: int) -> np.ndarray:
    """Resizes position embeddings to another number of positions.

    Args:
      embedding: [t, d].
      length: new number of positions.

    Returns:
      [length, d]: the first positions if `length` is smaller, else linear interpolation with
      half-pixel centres (PyTorch's ``align_corners=False``).
    """
    embedding = np.asarray(embedding)
    have = embedding.shape[0]
    if length <= have:
        return embedding[:length]
    centre = (np.arange(length) + 0.5) * (have / length) - 0.5
    centre = np.clip(centre, 0.0, have - 1.0)
    low = np.floor(centre).astype(int)
    high = np.minimum(low + 1, have - 1)
    share = (centre - low)[:, None]
    return ((1.0 - share) * embedding[low] + share * embedding[high]).astype(embedding.dtype)
