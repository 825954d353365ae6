"""Many streams in one state on the device: each has a row, and a step takes any rows of it."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sat_jax.errors import SatError
from sat_jax.runtime.jax_modes import standard_modes
from sat_jax.runtime.program_store import run_program
from sat_jax.stream_runner import StreamRunner
from sat_jax.streaming.model import StreamingModel
from sat_jax.streaming.state import ModelState, StreamState, new_streams, where_streams
from sat_jax.streaming.state_bytes import state_from_bytes, state_to_bytes

_SIZES = (16, 64, 128, 192, 256, 384, 512, 768)
"""Few sizes, so that a start finds its programs compiled."""


def default_buckets() -> Sequence[int]:
    """Returns the rows of the compiled steps. On a CPU, large batches gain little."""
    return (1, 2, 4, 8) if jax.local_devices()[0].platform == "cpu" else (8, 32, 128, 512)


class StreamPool:
    """The state of up to `size` streams.

    Attributes:
      buckets: rows that a step can have, ascending; a step of fewer takes as long.
    """

    def __init__(
        self, tagger: StreamRunner, size: int, *, buckets: Sequence[int] | None = None
    ) -> None:
        """Makes a pool of new streams, and compiles or loads its programs.

        Args:
          tagger: a model with chunk framing.
          size: the most streams.
          buckets: rows of its steps; None is what suits the device.

        Raises:
          SatError: the framing is seamless.
        """
        if tagger.framing.kind != "chunk":
            raise SatError("live streams need chunk framing: leave out seamless")
        self._tagger = tagger
        self._size = next((each for each in _SIZES if each >= size), -(-size // 1024) * 1024)
        self.buckets = tuple(buckets or default_buckets())
        self._fresh = tagger.init(1).model
        with standard_modes():
            # One more row, for what fills a step up.
            self._state: ModelState = jax.tree.map(
                lambda leaf: jnp.repeat(leaf, self._size + 1, 0), self._fresh
            )
        self._new = np.ones(self._size + 1, bool)
        self._programs = {rows: self._compile(rows) for rows in self.buckets}
        tagger.prepare(1)

    def reset(self, row: int) -> None:
        """Begins a new stream in a row."""
        self._new[row] = True

    def step(self, rows: Sequence[int], windows: np.ndarray) -> np.ndarray:
        """Scores the next chunk of some streams.

        Args:
          rows: different ones, at most the largest bucket.
          windows: float32 [b, hop], a chunk for each.

        Returns:
          Probabilities float32 [b, y]: up to rounding those of `StreamRunner.step`.
        """
        count = len(rows)
        bucket = next(each for each in self.buckets if each >= count)
        taken = np.full(bucket, self._size, np.int32)
        taken[:count] = rows
        filled = np.zeros((bucket, windows.shape[1]), np.float32)
        filled[:count] = windows
        variables = self._tagger.variables
        probs, self._state = run_program(
            self._programs[bucket],
            variables,
            self._state,
            self._fresh,
            filled,
            taken,
            self._new[taken],
        )
        self._new[taken] = False
        return np.asarray(probs)[:count]

    def finish(self, row: int, rest: np.ndarray, chunks: int) -> np.ndarray:
        """Scores what is left at the end of a stream, see `StreamRunner.finish`.

        Args:
          row: of the stream.
          rest: float32 [s], fewer than a chunk.
          chunks: chunks scored before.

        Returns:
          Probabilities float32 [k, y]; k is 0 or 1.
        """
        return self._tagger.finish(self._stream_state(row, rest, chunks))[:, 0]

    def to_bytes(self, row: int, rest: np.ndarray, chunks: int) -> bytes:
        """Returns the state of a stream, see `finish`, to put it into another pool."""
        return state_to_bytes(self._stream_state(row, rest, chunks))

    def from_bytes(self, row: int, data: bytes) -> tuple[np.ndarray, int]:
        """Puts a stream into a row; returns the rest and the chunks of `to_bytes`.

        Raises:
          SatError: the bytes are damaged, or of another model.
        """
        state = state_from_bytes(self._tagger.init(1), data)
        with standard_modes():
            self._state = jax.tree.map(
                lambda leaf, one: leaf.at[row].set(one[0]), self._state, state.model
            )
        self._new[row] = False
        return state.window[0, : state.filled[0]], int(state.chunks[0])

    def _stream_state(self, row: int, rest: np.ndarray, chunks: int) -> StreamState:
        with standard_modes():
            model = jax.tree.map(lambda leaf: leaf[row : row + 1], self._state)
        state = new_streams(self._tagger.framing, self._fresh if self._new[row] else model)
        state.window[0, : len(rest)] = rest
        return state._replace(filled=np.array([len(rest)]), chunks=np.array([chunks]))

    def _compile(self, rows: int) -> Any:
        hop = self._tagger.framing.hop
        return self._tagger.programs.program(
            _step_rows,
            (self._tagger.streams,),
            self._tagger.variables,
            self._state,
            self._fresh,
            np.zeros((rows, hop), np.float32),
            np.zeros(rows, np.int32),
            np.zeros(rows, bool),
        )


@functools.partial(jax.jit, static_argnums=0, donate_argnums=2)
def _step_rows(
    streams: StreamingModel,
    variables: Any,
    pool: ModelState,
    fresh: ModelState,
    windows: jax.Array,
    rows: jax.Array,
    is_new: jax.Array,
) -> tuple[jax.Array, ModelState]:
    """Steps some rows; the pool's memory is reused."""
    old = jax.tree.map(lambda leaf: leaf[rows], pool)
    first = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (len(rows), *leaf.shape[1:])), fresh)
    probs, state = streams.step(variables, windows, where_streams(is_new, first, old))
    moved = jax.tree.map(lambda leaf, some: leaf.at[rows].set(some), pool, state)
    return probs[:, : streams.config.num_classes], moved
