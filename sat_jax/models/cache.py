"""The cache of a streaming model: past tokens of every layer, as a plain pytree."""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from sat_jax.config import ModelConfig

CacheForm = Literal["kv", "tokens"]


class TokenPast(NamedTuple):
    """A layer's past as its input, the residual stream: [b, m, d]."""

    tokens: jax.Array


class KVPast(NamedTuple):
    """A layer's past as projected keys and values: [b, m, 2 d], keys first."""

    kv: jax.Array


Past = TokenPast | KVPast


def append_past(past: jax.Array, new: jax.Array) -> jax.Array:
    """Returns the newest m tokens of [b, m, d] followed by [b, n, d]."""
    room = past.shape[1]
    return jnp.concatenate([past, new], axis=1)[:, -room:]


class Cache(NamedTuple):
    """Past of all layers, newest token last.

    Attributes:
      past: one entry per layer; empty for a clip model.
      num_real: int32 [b], number of slots with tokens, which are the last ones. The others are
        zeros and masked, so an empty cache and a full one run the same program.
    """

    past: tuple[Past, ...]
    num_real: jax.Array

    @property
    def room(self) -> int:
        """Slots per layer."""
        return self.past[0][0].shape[1]


def init_cache(config: ModelConfig, batch_size: int, form: CacheForm) -> Cache:
    """Returns an empty cache.

    Args:
      config: the model; a clip model's cache holds no layers.
      batch_size: number of streams.
      form: "tokens" keeps every layer's input, as published. Training needs it: its gradients
        reach the projections of past tokens. "kv" keeps projected keys and values, which gives the
        same outputs with less work. Layer 0 stays in token form, because its cached tokens get
        positions anew at each call.
    """
    dtype = jnp.dtype(config.dtype)
    room, width = config.cache_tokens, config.width

    def layer(index: int) -> Past:
        if form == "tokens" or index == 0:
            return TokenPast(jnp.zeros((batch_size, room, width), dtype))
        return KVPast(jnp.zeros((batch_size, room, 2 * width), dtype))

    depth = config.depth if config.is_streaming else 0
    return Cache(tuple(layer(i) for i in range(depth)), jnp.zeros((batch_size,), jnp.int32))
