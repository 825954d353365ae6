"""The state of streams: a plain pytree that the caller keeps and passes back in."""

from typing import Any, NamedTuple, TypeVar

import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np

from sat_jax.errors import SatError
from sat_jax.models.cache import Cache

Tree = TypeVar("Tree")


class StreamState(NamedTuple):
    """State of b streams: a pytree of arrays [b, …].

    Attributes:
      cache: past tokens of every layer.
      window: float32 [b, s], samples not yet used up, see `Framing`; zeros after `filled`.
      filled: int32 [b], samples in the window.
      chunks: int32 [b], chunks completed.
      peak_db: float32 [b], loudest log-mel value so far (seamless framing only).
      ready: bool [b], whether the last step completed a chunk, so that its probabilities count.
    """

    cache: Cache
    window: jax.Array
    filled: jax.Array
    chunks: jax.Array
    peak_db: jax.Array
    ready: jax.Array

    def __repr__(self) -> str:
        """Shows sizes instead of values."""
        sizes = [np.shape(leaf) for leaf in jax.tree.leaves(self.cache.past)]
        return (
            f"StreamState({np.shape(self.filled)[0]} streams, window of "
            f"{np.shape(self.window)[1]} samples, cache {sizes})"
        )


def state_layout(state: Any) -> tuple[Any, ...]:
    """Tree structure, dtypes and shapes (without the batch axis) of a state; hashable."""
    leaves, tree = jax.tree.flatten(state)
    return tree, *((np.shape(leaf)[1:], getattr(leaf, "dtype", None)) for leaf in leaves)


def hold_samples(
    state: StreamState, samples: np.ndarray, counts: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Puts samples into the windows without a step, on the host.

    Args:
      state: of the streams.
      samples: float32 [b, s], padded after `counts`.
      counts: int [b], samples to add to each stream: too few to complete a chunk.

    Returns:
      The new `window` and `filled` of the state.
    """
    window, filled = np.array(state.window), np.asarray(state.filled)
    for row, (start, count) in enumerate(zip(filled, counts, strict=True)):
        window[row, start : start + count] = samples[row, :count]
    return window, (filled + counts).astype(np.int32)


def reset_streams(state: StreamState, fresh: StreamState, mask: jax.Array) -> StreamState:
    """Restarts the streams where `mask` is True; the others go on untouched.

    Args:
      state: the running streams.
      fresh: from `init`, with the same batch size.
      mask: bool [b].

    Returns:
      The state of all streams.

    Raises:
      SatError: the mask is not bool [b], or `fresh` has another batch size, model or framing.
    """
    streams = state.chunks.shape
    if getattr(mask, "shape", None) != streams or mask.dtype != jnp.bool_:
        raise SatError(f"the mask is not bool{list(streams)}: give one bool for each stream")
    if fresh.chunks.shape != streams:
        raise SatError(
            f"{fresh.chunks.shape[0]} fresh streams cannot replace {streams[0]}: init as many"
        )
    if state_layout(fresh) != state_layout(state):
        raise SatError(
            "the fresh streams have another model, framing or chunk length: init them with the "
            "tagger of the running ones"
        )
    return where_streams(mask, fresh, state)


def where_streams(mask: jax.Array, yes: Tree, no: Tree) -> Tree:
    """Selects stream by stream from two trees of arrays [b, …]."""

    def pick(a: jax.Array, b: jax.Array) -> jax.Array:
        return jnp.where(mask.reshape(-1, *[1] * (a.ndim - 1)), a, b)

    return jax.tree.map(pick, yes, no)


def state_to_bytes(state: StreamState) -> bytes:
    """Returns a state as bytes (MessagePack), to store it or to send it elsewhere."""
    return flax.serialization.to_bytes(state)


def state_from_bytes(like: StreamState, data: bytes) -> StreamState:
    """Restores what `state_to_bytes` wrote.

    Args:
      like: a state of the same model, framing and batch size, for its shapes.
      data: the bytes.

    Raises:
      SatError: the bytes are damaged, or belong to another model, framing or batch size.
    """
    try:
        state = flax.serialization.from_bytes(like, data)
    except Exception as error:  # MessagePack raises many kinds for damaged input.
        raise SatError(f"these bytes are not a stream state: {error}".splitlines()[0]) from error
    for have, want in zip(jax.tree.leaves(state), jax.tree.leaves(like), strict=True):
        if have.shape != want.shape or have.dtype != want.dtype:
            raise SatError(
                f"this stream state has {have.dtype}{list(have.shape)} where the model needs "
                f"{want.dtype}{list(want.shape)}: it belongs to another model, framing or batch"
            )
    return jax.tree.map(jnp.asarray, state)
