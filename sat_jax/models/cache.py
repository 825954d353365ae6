"""What a streaming model remembers: past tokens of every layer, as a plain pytree."""

from typing import Literal, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp

from sat_jax.config import ModelConfig

CacheForm = Literal["kv", "tokens"]


class TokenPast(NamedTuple):
    """A layer's past as the residual stream that entered it, [b, m, d]."""

    tokens: jax.Array


class KVPast(NamedTuple):
    """A layer's past as keys and values already projected, [b, m, 2 d] (keys first)."""

    kv: jax.Array


Past = TokenPast | KVPast


@flax.struct.dataclass
class WindowPast:
    """What came before a window whose pieces a layer hears together.

    Before each piece the layer finds this and the pieces that precede it.

    Attributes:
      tokens: [b, m, d] as in `TokenPast`, or None where nothing came before.
      num_pieces: of the window.
    """

    tokens: jax.Array | None
    num_pieces: int = flax.struct.field(pytree_node=False)


def append_past(past: jax.Array, new: jax.Array) -> jax.Array:
    """Keeps the newest tokens: the last m of [b, m, d] followed by [b, n, d]."""
    room = past.shape[1]
    return jnp.concatenate([past, new], axis=1)[:, -room:]


class Cache(NamedTuple):
    """Past of all layers, newest token last.

    Attributes:
      past: one entry a layer; empty for a clip model.
      num_real: int32 [b], how many of the last slots hold tokens; the others are zeros and
        masked, so an empty cache and a full one run the same program.
    """

    past: tuple[Past, ...]
    num_real: jax.Array

    @property
    def room(self) -> int:
        """Slots per layer."""
        return self.past[0][0].shape[1]


def init_cache(config: ModelConfig, batch_size: int, form: CacheForm) -> Cache:
    """An empty cache.

    Args:
      config: the model; a clip model's cache holds no layers.
      batch_size: streams.
      form: "tokens" keeps every layer's residual stream, as published (training needs it: its
        gradients reach the projections of past tokens). "kv" keeps projected keys and values
        instead, with the same answers and less work; layer 0, whose cached tokens get positions
        anew at each call, stays in token form.
    """
    dtype = jnp.dtype(config.dtype)
    room, width = config.cache_tokens, config.width

    def layer(index: int) -> Past:
        if form == "tokens" or index == 0:
            return TokenPast(jnp.zeros((batch_size, room, width), dtype))
        return KVPast(jnp.zeros((batch_size, room, 2 * width), dtype))

    depth = config.depth if config.is_streaming else 0
    return Cache(tuple(layer(i) for i in range(depth)), jnp.zeros((batch_size,), jnp.int32))
