"""The state of streams as bytes, to store it or to send it elsewhere."""

import hashlib
from typing import Any

import flax.serialization
import jax
import numpy as np

from sat_jax.errors import SatError
from sat_jax.runtime.jax_modes import standard_modes
from sat_jax.streaming.state import StreamState, host_fields

_MAGIC = b"sat_jax streams 2\n"
"""Begins the bytes; the number grows when the format changes."""

_CHECKSUM_BYTES = 16


def state_to_bytes(state: StreamState) -> bytes:
    """Returns a state as bytes: a version, a checksum, and the arrays as MessagePack.

    Raises:
      SatError: it is not a state.
    """
    _check_type(state)
    host: dict[str, Any] = host_fields(state)
    counters = {name: host[name].astype(np.int64) for name in ("filled", "chunks")}
    data = flax.serialization.to_bytes(state._replace(**host | counters))
    return _MAGIC + _checksum(data) + data


def state_from_bytes(like: StreamState, data: bytes) -> StreamState:
    """Restores what `state_to_bytes` wrote.

    Args:
      like: a state of the same model, framing and batch size, for its shapes.
      data: the bytes.

    Raises:
      SatError: `like` is not a state, or the bytes are damaged, of another version of sat_jax, or
        belong to another model, framing, chunk length or batch size.
    """
    _check_type(like)
    if not (isinstance(data, bytes | bytearray | memoryview) and data[: len(_MAGIC)] == _MAGIC):
        raise SatError(
            "these bytes are not a stream state of this version of sat_jax: start with init()"
        )
    signed = bytes(data)[len(_MAGIC) :]
    checksum, content = signed[:_CHECKSUM_BYTES], signed[_CHECKSUM_BYTES:]
    if checksum != _checksum(content):
        raise SatError("this stream state is damaged: its checksum does not match its content")
    try:
        state: StreamState = flax.serialization.from_bytes(like, content)
        # Fails where an array of `like` is missing, or something else has its place.
        shapes = jax.tree.map(lambda _, x: jax.ShapeDtypeStruct(x.shape, x.dtype), like, state)
    except Exception as error:  # MessagePack and Flax raise many kinds.
        raise SatError("this stream state belongs to another model, or is damaged") from error
    for found, want in zip(jax.tree.leaves(shapes), jax.tree.leaves(like), strict=True):
        if (found.dtype, found.shape) != (want.dtype, want.shape):
            raise SatError(
                f"this stream state has {found.dtype}{list(found.shape)} where the model needs "
                f"{want.dtype}{list(want.shape)}: it belongs to another model, framing or batch"
            )
    _check_counters(state)
    with standard_modes():
        return state.after(jax.device_put(state.model))


def _check_type(state: object) -> None:
    if not isinstance(state, StreamState):
        raise SatError(f"a {type(state).__name__} is not a stream state: give one of a tagger")


def _check_counters(state: StreamState) -> None:
    room = state.cache.room if state.cache.past else 0
    for name, counter, most in (
        ("filled", state.filled, state.window.shape[1] - 1),
        ("chunks", state.chunks, np.iinfo(np.int64).max),
        ("num_real", state.cache.num_real, room),
    ):
        if ((counter < 0) | (counter > most)).any():
            raise SatError(
                f"this stream state is damaged: {name} is {counter.tolist()}, not 0 to {most}"
            )


def _checksum(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=_CHECKSUM_BYTES).digest()
