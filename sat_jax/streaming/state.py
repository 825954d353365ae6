"""The state of streams: a plain pytree that the caller keeps and passes back in."""

from typing import Any, NamedTuple, Self, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from sat_jax.errors import SatError
from sat_jax.models.cache import Cache
from sat_jax.runtime.jax_modes import standard_modes
from sat_jax.streaming.framing import Framing

Tree = TypeVar("Tree")


class ModelState(NamedTuple):
    """What a step leaves for the next one: a pytree of arrays [b, …] on the device.

    Attributes:
      cache: past tokens of every layer.
      peak_db: float32 [b], loudest log-mel value so far (seamless framing only).
    """

    cache: Cache
    peak_db: jax.Array


class StreamState(NamedTuple):
    """State of b streams: a pytree of arrays [b, …].

    `cache` and `peak_db` are on the device. The others are NumPy arrays, so reading them never
    waits for it.

    Attributes:
      cache: past tokens of every layer.
      window: float32 [b, s], samples that wait for a step, see `Framing`; zeros after `filled`.
      filled: int64 [b], samples in the window.
      chunks: int64 [b], chunks completed.
      peak_db: float32 [b], loudest log-mel value so far (seamless framing only).
      ready: bool [b], whether the last step completed a chunk, so that its probabilities count.
    """

    cache: Cache
    window: np.ndarray
    filled: np.ndarray
    chunks: np.ndarray
    peak_db: jax.Array
    ready: np.ndarray

    def __repr__(self) -> str:
        """Shows sizes instead of values."""
        sizes = [np.shape(leaf) for leaf in jax.tree.leaves(self.cache.past)]
        return (
            f"StreamState({np.shape(self.filled)[0]} streams, window of "
            f"{np.shape(self.window)[1]} samples, cache {sizes})"
        )

    @property
    def model(self) -> ModelState:
        """The part that a compiled step takes."""
        return ModelState(self.cache, self.peak_db)

    def after(self, model: ModelState) -> Self:
        """Returns the same streams after a compiled step."""
        return self._replace(cache=model.cache, peak_db=model.peak_db)


AnyState = TypeVar("AnyState", StreamState, ModelState)


def new_streams(framing: Framing, model: ModelState) -> StreamState:
    """Returns streams without samples.

    Args:
      framing: how they are cut into windows.
      model: from `sat_jax.streaming.StreamingModel.init`.
    """
    count = model.peak_db.shape[0]
    return StreamState(
        cache=model.cache,
        window=np.zeros((count, framing.window), np.float32),
        filled=np.full(count, framing.margin),
        chunks=np.zeros(count, np.int64),
        peak_db=model.peak_db,
        ready=np.zeros(count, bool),
    )


def state_layout(state: Any) -> tuple[Any, ...]:
    """Tree structure, dtypes and shapes (without the batch axis) of a state; hashable."""
    leaves, tree = jax.tree.flatten(state)
    return tree, *((np.shape(leaf)[1:], getattr(leaf, "dtype", None)) for leaf in leaves)


def host_fields(state: StreamState) -> dict[str, np.ndarray]:
    """Returns the fields on the host as NumPy arrays; callers may have put others there."""
    names = ("window", "filled", "chunks", "ready")
    fields = {name: getattr(state, name) for name in names}
    return {
        name: field if isinstance(field, np.ndarray) else np.asarray(jax.device_get(field))
        for name, field in fields.items()
    }


def check_streams(state: object, framing: Framing) -> StreamState:
    """Returns a state with its host fields as NumPy arrays, after checking them.

    Args:
      state: from a caller, so anything.
      framing: how its streams are cut into windows.

    Raises:
      SatError: it is not a state, belongs to another framing or chunk length, or its counters are
        out of range.
    """
    if not isinstance(state, StreamState):
        raise SatError(f"this state is a {type(state).__name__}: use init() of this tagger")
    host: dict[str, Any] = host_fields(state)
    held, count = state._replace(**host), np.shape(state.peak_db)[:1]
    layout = {name: (leaf.shape, leaf.dtype.kind) for name, leaf in host.items()}
    if layout != {
        "window": ((*count, framing.window), "f"),
        "filled": (count, "i"),
        "chunks": (count, "i"),
        "ready": (count, "b"),
    }:
        raise SatError(
            "this state belongs to another framing or chunk length: use init() of this tagger"
        )
    # Python's numbers: NumPy would take ten times as long for a few streams.
    for row, (filled, chunks) in enumerate(
        zip(held.filled.tolist(), held.chunks.tolist(), strict=True)
    ):
        least = framing.window - framing.hop if chunks else framing.margin
        if not (least <= filled < framing.window and chunks >= 0):
            raise SatError(
                f"this state is damaged: its stream {row} has completed {chunks} chunks and "
                f"holds {filled} samples; use init() of this tagger"
            )
    return held


def reset_streams(state: AnyState, fresh: AnyState, mask: jax.Array) -> AnyState:
    """Restarts the streams where `mask` is True; the others go on untouched.

    Args:
      state: the running streams, a `StreamState` or `ModelState`.
      fresh: new ones, as many.
      mask: bool [b].

    Returns:
      The state of all streams.

    Raises:
      SatError: the mask is not bool [b], or `fresh` has another batch size, model or framing.
    """
    streams = state.peak_db.shape
    if getattr(mask, "shape", None) != streams or mask.dtype != jnp.bool_:
        raise SatError(f"the mask is not bool{list(streams)}: give one bool for each stream")
    if fresh.peak_db.shape != streams:
        raise SatError(
            f"{fresh.peak_db.shape[0]} fresh streams cannot replace {streams[0]}: init as many"
        )
    if state_layout(fresh) != state_layout(state):
        raise SatError(
            "the fresh streams have another model, framing or chunk length: init them with the "
            "tagger of the running ones"
        )
    with standard_modes():
        return where_streams(mask, fresh, state)


def where_streams(mask: jax.Array, yes: Tree, no: Tree) -> Tree:
    """Selects stream by stream from two trees of arrays [b, …]."""

    def pick(a: Any, b: Any) -> Any:
        where = np.where if isinstance(a, np.ndarray) else jnp.where
        return where(mask.reshape(-1, *[1] * (a.ndim - 1)), a, b)

    return jax.tree.map(pick, yes, no)
