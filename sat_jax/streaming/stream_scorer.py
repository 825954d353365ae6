"""Stream mode for many recordings, in batches of one shape."""

import functools
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from sat_jax.config import PATCH_SIZE, Warmup
from sat_jax.runtime.sharding import batch_sharding, make_mesh, replicated, shard_batch
from sat_jax.streaming.model import StreamingModel
from sat_jax.streaming.pieces import PiecePlan, Variables, plan_rest
from sat_jax.streaming.scored_chunk import check_finite
from sat_jax.streaming.state import StreamState, hold_samples, reset_streams

_SECONDS_PER_CALL = 10.0
"""Seconds of each stream that one call of the compiled scan processes."""

LONG_SECONDS = 12.0
"""Batches of longer sounds have fewer rows, so that memory stays about the same."""

WIDTH_STEP = 2 * PATCH_SIZE
"""Arrays are padded to a multiple of so many frames, so that few shapes are compiled."""


def rows_per_call(batch_size: int, seconds: float, mesh: Mesh) -> int:
    """Returns the rows of a batch of sounds of `seconds`: a multiple of the mesh's devices."""
    rows = max(1, int(batch_size * min(1.0, LONG_SECONDS / seconds)))
    return -(-rows // mesh.size) * mesh.size


class StreamScorer:
    """Scores recordings of any lengths as streams, side by side and spread over devices.

    Each recording gets the probabilities that it gets alone. Streams that have ended stand still
    while longer ones of their batch go on.
    """

    def __init__(
        self,
        streams: StreamingModel,
        variables: Variables,
        *,
        warmup: Warmup,
        batch_size: int,
        mesh: Mesh | None = None,
    ) -> None:
        """Makes a scorer.

        Args:
          streams: the model and its framing.
          variables: its weights.
          warmup: see `StreamingModel.init`.
          batch_size: streams side by side, fewer if chunks are longer than 12 s; rounded up to a
            multiple of the devices.
          mesh: the devices; None is the first one.
        """
        self._streams, self._framing = streams, streams.framing
        self._mesh = mesh or make_mesh(jax.local_devices()[:1])
        self._variables = jax.device_put(variables, replicated(self._mesh))
        seconds = self._framing.hop / streams.config.frontend.sample_rate
        self._rows = rows_per_call(batch_size, seconds, self._mesh)
        self._chunks_per_call = max(1, round(_SECONDS_PER_CALL / seconds))
        # Seamless chunks need a few samples beyond their hop, which wait in the window.
        self._lead = self._framing.required - self._framing.margin - self._framing.hop
        init = functools.partial(streams.init, batch_size=self._rows, warmup=warmup)
        self._fresh = jax.jit(init, out_shardings=batch_sharding(self._mesh))(self._variables)

    def score(self, recordings: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Scores recordings, those of similar length side by side.

        Args:
          recordings: float32 [s] each, at least one sample, in [-1, 1] at the model's rate.

        Returns:
          Probabilities float32 [k, y] of each recording's chunks, in the order of recordings.

        Raises:
          SatError: probabilities are not finite.
        """
        by_length = sorted(range(len(recordings)), key=lambda index: -len(recordings[index]))
        scored: list[np.ndarray] = [np.zeros(0)] * len(recordings)
        for first in range(0, len(by_length), self._rows):
            batch = by_length[first : first + self._rows]
            probs_of_batch = self._score_batch([recordings[index] for index in batch])
            for index, probs in zip(batch, probs_of_batch, strict=True):
                scored[index] = check_finite(probs)
        return scored

    def _score_batch(self, sounds: Sequence[np.ndarray]) -> list[np.ndarray]:
        hop, lead = self._framing.hop, self._lead
        lengths = np.zeros(self._rows, np.int64)
        lengths[: len(sounds)] = [len(sound) for sound in sounds]
        chunks = np.maximum(lengths - lead, 0) // hop
        state = self._hold(self._fresh, sounds, np.zeros_like(lengths), np.minimum(lengths, lead))
        parts: list[list[np.ndarray]] = [[] for _ in sounds]
        for first in range(0, int(chunks.max()), self._chunks_per_call):
            probs, state = self._scan(state, sounds, first, chunks)
            for row, part in enumerate(parts):
                part.append(probs[row, : max(0, int(chunks[row]) - first)])
        rest_start = np.where(lengths < lead, lengths, lead + chunks * hop)
        state = self._hold(state, sounds, rest_start, lengths - rest_start)
        for rows, probs in self._finish(state, lengths - chunks * hop, chunks, len(sounds)):
            for row in rows:
                parts[row].append(probs[:, row])
        empty = np.zeros((0, self._streams.config.num_classes), np.float32)
        return [np.concatenate([empty, *part]) for part in parts]

    def _hold(
        self,
        state: StreamState,
        sounds: Sequence[np.ndarray],
        starts: np.ndarray,
        counts: np.ndarray,
    ) -> StreamState:
        """Puts `counts` [b] samples, starting at `starts` [b], into the windows."""
        if not counts.any():
            return state
        samples = np.zeros((self._rows, int(counts.max())), np.float32)
        for row, sound in enumerate(sounds):
            samples[row, : counts[row]] = sound[starts[row] : starts[row] + counts[row]]
        window, filled = hold_samples(state, samples, counts)
        placed = shard_batch(self._mesh, {"window": window, "filled": filled})
        return state._replace(window=placed["window"], filled=placed["filled"])

    def _scan(
        self, state: StreamState, sounds: Sequence[np.ndarray], first: int, chunks: np.ndarray
    ) -> tuple[np.ndarray, StreamState]:
        """Returns probabilities [b, k, y] of each stream's chunks from `first` on."""
        count, hop = self._chunks_per_call, self._framing.hop
        samples = np.zeros((self._rows, count * hop), np.float32)
        for row, sound in enumerate(sounds):
            end = self._lead + min(int(chunks[row]), first + count) * hop
            part = sound[self._lead + first * hop : max(end, 0)]
            samples[row, : len(part)] = part
        runs = first + np.arange(count) < chunks[:, None]
        placed = shard_batch(
            self._mesh, {"samples": samples.reshape(self._rows, count, hop), "runs": runs}
        )
        probs, state = _scan_streams(self._streams, self._variables, state, **placed)
        return np.asarray(probs), state

    def _finish(
        self, state: StreamState, left: np.ndarray, chunks: np.ndarray, num_real: int
    ) -> Iterator[tuple[list[int], np.ndarray]]:
        """Yields rows whose ends have the same plan, and their probabilities [k, b, y]."""
        plans: dict[PiecePlan, list[int]] = {}
        for row in range(num_real):
            filled = self._framing.margin + int(left[row])
            plan = plan_rest(
                self._streams.config, self._framing, filled=filled, chunks=int(chunks[row])
            )
            if not plan.is_empty:
                plans.setdefault(plan, []).append(row)
        for plan, rows in plans.items():
            # However long a chunk may be: only the filled part costs time and memory.
            ends = state._replace(window=state.window[:, : self._width(plan, left[rows])])
            yield rows, np.asarray(self._streams.finish(self._variables, ends, plan=plan))

    def _width(self, plan: PiecePlan, left: np.ndarray) -> int:
        """Returns the samples of windows that hold `left` samples each and the plan's frames."""
        hop = self._streams.config.frontend.hop_length
        frames = plan.num_whole * plan.length + max(plan.rest, plan.padded)
        frames = max(frames, -(-int(left.max()) // hop))
        width = -(-frames // WIDTH_STEP) * WIDTH_STEP * hop + 2 * self._framing.margin
        return min(width, self._framing.window)


@functools.partial(jax.jit, static_argnums=0)
def _scan_streams(
    streams: StreamingModel,
    variables: Variables,
    state: StreamState,
    *,
    samples: jax.Array,
    runs: jax.Array,
) -> tuple[jax.Array, StreamState]:
    """Runs steps [b, k, s]; where `runs` [b, k] is False, a stream keeps its state.

    Returns:
      Probabilities [b, k, y], undefined where `runs` is False, and the state.
    """

    def step(
        state: StreamState, inputs: tuple[jax.Array, jax.Array]
    ) -> tuple[StreamState, jax.Array]:
        block, running = inputs
        probs, moved = streams.step(variables, block, state)
        return reset_streams(moved, state, ~running), probs

    by_time = (jnp.moveaxis(samples, 1, 0), runs.T)
    state, probs = jax.lax.scan(step, state, by_time)
    return jnp.moveaxis(probs, 0, 1), state
