"""The signature of an exported step, the same in every format.

Inputs are ``samples``, float32 [b, window], and the arrays of the state; outputs are ``probs``,
float32 [b, y], and the arrays of the next state, named ``new_…``. The batch is the first axis of
each array, so that a server can gather streams by row. A number per stream is an array [b, 1],
because servers such as Triton know no state without axes.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sat_jax.config import Warmup
from sat_jax.models.cache import Cache, KVPast, Past, TokenPast
from sat_jax.streaming.model import StreamingModel
from sat_jax.streaming.pieces import Variables
from sat_jax.streaming.state import ModelState

SAMPLES, PROBS = "samples", "probs"
NEW = "new_"
"""Begins the names of the next state's arrays."""

Arrays = dict[str, np.ndarray]


class StateArray(NamedTuple):
    """An array of the state.

    Attributes:
      name: "tokens", layer 0's past [b, m, d]; "kv", keys and values of the other layers
        [b, l - 1, m, 2 d]; "num_real" [b, 1], cached tokens that are real; or, with seamless
        framing, "peak_db" [b, 1].
      shape: without the batch.
      dtype: "float32" or "int32".
    """

    name: str
    shape: tuple[int, ...]
    dtype: str


def state_arrays(model: StreamingModel) -> tuple[StateArray, ...]:
    """Returns the arrays of the state in order; none for a clip model with chunk framing."""
    config, arrays = model.config, []
    if config.is_streaming:
        slots, width = config.cache_tokens, config.width
        arrays.append(StateArray("tokens", (slots, width), "float32"))
        if config.depth > 1:
            arrays.append(StateArray("kv", (config.depth - 1, slots, 2 * width), "float32"))
        arrays.append(StateArray("num_real", (1,), "int32"))
    if model.framing.kind == "seamless":
        arrays.append(StateArray("peak_db", (1,), "float32"))
    return tuple(arrays)


def initial_state(
    model: StreamingModel, variables: Variables, warmup: Warmup = "silence"
) -> Arrays:
    """Returns the state of one new stream, without the batch axis."""
    state = model.init(variables, 1, warmup=warmup)
    return {name: array[0] for name, array in host_arrays(model, state).items()}


def host_arrays(model: StreamingModel, state: ModelState) -> Arrays:
    """Returns `to_arrays` as NumPy arrays."""
    return {name: np.asarray(array) for name, array in to_arrays(model, state).items()}


def to_arrays(model: StreamingModel, state: ModelState) -> dict[str, jax.Array]:
    """Returns the arrays of a state whose cache has the form "kv"."""
    every = {"num_real": state.cache.num_real[:, None], "peak_db": state.peak_db[:, None]}
    if model.config.is_streaming:
        first, *others = (past[0] for past in state.cache.past)
        every["tokens"] = first
        if others:
            every["kv"] = jnp.stack(others, axis=1)
    return {each.name: every[each.name] for each in state_arrays(model)}


def from_arrays(model: StreamingModel, arrays: Mapping[str, Any], batch_size: int) -> ModelState:
    """Inverse of `to_arrays`. What a signature lacks does not matter to its model."""
    past: tuple[Past, ...] = ()
    if model.config.is_streaming:
        kv = arrays.get("kv")
        layers = () if kv is None else tuple(KVPast(kv[:, i]) for i in range(kv.shape[1]))
        past = (TokenPast(arrays["tokens"]), *layers)
    num_real = arrays.get("num_real", jnp.zeros((batch_size, 1), jnp.int32))
    peak_db = arrays.get("peak_db", jnp.full((batch_size, 1), -jnp.inf, jnp.float32))
    return ModelState(Cache(past, num_real[:, 0]), peak_db[:, 0])
