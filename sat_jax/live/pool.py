"""The states of many streams on the device, and steps of any of them at once."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sat_jax.errors import SatError
from sat_jax.runtime.program_store import run_program
from sat_jax.stream_runner import StreamRunner
from sat_jax.streaming.model import StreamingModel
from sat_jax.streaming.state import ModelState, StreamState, new_streams
from sat_jax.streaming.state_bytes import state_from_bytes, state_to_bytes


def default_buckets() -> Sequence[int]:
    """Returns the streams of the compiled steps. On a CPU, large batches gain little."""
    return (1, 2, 4, 8) if jax.local_devices()[0].platform == "cpu" else (8, 32, 128)


class StreamPool:
    """The states of up to `size` streams, each with a row of its own.

    A step joins the states of its streams and parts them again. One array of all streams would be
    copied in each step on CPUs: XLA does not update it in place.

    Attributes:
      buckets: streams that a step can have, ascending; a step of fewer takes as long.
    """

    def __init__(
        self, tagger: StreamRunner, size: int, *, buckets: Sequence[int] | None = None
    ) -> None:
        """Makes a pool of new streams, and compiles or loads its programs.

        Args:
          tagger: a model with chunk framing.
          size: the most streams.
          buckets: streams of its steps; None is what suits the device.

        Raises:
          SatError: the framing is seamless.
        """
        if tagger.framing.kind != "chunk":
            raise SatError("live streams need chunk framing: leave out seamless")
        self._tagger = tagger
        self.buckets = tuple(buckets or default_buckets())
        self._fresh = tagger.init(1).model
        self._states = [self._fresh] * size
        self._programs = {rows: self._compile(rows) for rows in self.buckets}
        tagger.prepare(1)

    def reset(self, row: int) -> None:
        """Begins a new stream in a row."""
        self._states[row] = self._fresh

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
        states = [self._states[row] for row in rows] + [self._fresh] * (bucket - count)
        filled = np.zeros((bucket, windows.shape[1]), np.float32)
        filled[:count] = windows
        program = self._programs[bucket]
        probs, moved = run_program(program, self._tagger.variables, filled, tuple(states))
        for row, state in zip(rows, moved, strict=False):  # Those of the filling are left over.
            self._states[row] = state
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
        self._states[row] = state.model
        return state.window[0, : state.filled[0]], int(state.chunks[0])

    def _stream_state(self, row: int, rest: np.ndarray, chunks: int) -> StreamState:
        state = new_streams(self._tagger.framing, self._states[row])
        state.window[0, : len(rest)] = rest
        return state._replace(filled=np.array([len(rest)]), chunks=np.array([chunks]))

    def _compile(self, rows: int) -> Any:
        windows = np.zeros((rows, self._tagger.framing.hop), np.float32)
        states = (self._fresh,) * rows
        variables = self._tagger.variables
        program = self._tagger.programs.program(
            _step_streams, (self._tagger.streams,), variables, windows, states
        )
        # The first run takes up to 0.3 s more, for which streams would wait.
        jax.block_until_ready(run_program(program, variables, windows, states))
        return program


@functools.partial(jax.jit, static_argnums=0)
def _step_streams(
    streams: StreamingModel,
    variables: Any,
    windows: jax.Array,
    states: tuple[ModelState, ...],
) -> tuple[jax.Array, tuple[ModelState, ...]]:
    """Steps streams whose states are apart."""
    joined = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *states)
    probs, moved = streams.step(variables, windows, joined)
    parts = [jax.tree.map(lambda leaf, k=k: leaf[k : k + 1], moved) for k in range(len(states))]
    return probs[:, : streams.config.num_classes], tuple(parts)
