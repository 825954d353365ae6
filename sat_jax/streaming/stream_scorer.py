"""Many recordings as streams side by side, from their first sample to their last."""

import functools
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from sat_jax.config import PATCH_SIZE, ModelConfig
from sat_jax.errors import SatError
from sat_jax.models.transformer import AudioTransformer
from sat_jax.runtime.sharding import batch_sharding, make_mesh, replicated, shard_batch
from sat_jax.streaming.framing import Framing
from sat_jax.streaming.pieces import PiecePlan, Variables
from sat_jax.streaming.step import (
    StreamState,
    Warmup,
    hold_samples,
    init_stream,
    plan_rest,
    reset_streams,
    score_rest,
    stream_step,
)

_SECONDS_PER_CALL = 10.0
"""What one call of the compiled scan hears of each stream."""

_LONG_SECONDS = 12.0
"""Fewer streams with longer chunks are side by side, so that memory stays about the same."""

_WIDTH_STEP = 2 * PATCH_SIZE
"""Windows of ends are cut to a multiple of so many frames, so that few shapes are compiled."""


class StreamScorer:
    """Stream mode for recordings of any lengths, in batches of one shape, spread over devices.

    Each recording is a stream of its own, with the answers that it gets alone. Streams that have
    ended stand still while longer ones of their batch go on.
    """

    def __init__(
        self,
        config: ModelConfig,
        variables: Variables,
        *,
        framing: Framing,
        warmup: Warmup,
        batch_size: int,
        mesh: Mesh | None = None,
    ) -> None:
        """Makes a scorer.

        Args:
          config: the model.
          variables: its weights.
          framing: how streams are cut into chunks.
          warmup: what the cache holds at a stream's start.
          batch_size: streams side by side, with chunks of more than 12 s fewer; rounded up to a
            multiple of the devices.
          mesh: the devices that streams are spread over; None is the first one.
        """
        self._config, self._framing = config, framing
        self._model = AudioTransformer(config)
        self._mesh = mesh or make_mesh(jax.local_devices()[:1])
        self._variables = jax.device_put(variables, replicated(self._mesh))
        seconds = framing.hop / config.frontend.sample_rate
        rows = max(1, int(batch_size * min(1.0, _LONG_SECONDS / seconds)))
        self._rows = -(-rows // self._mesh.size) * self._mesh.size
        self._chunks_per_call = max(1, round(_SECONDS_PER_CALL / seconds))
        # Seamless chunks need a few samples beyond their hop, which wait in the window.
        self._lead = framing.required - framing.margin - framing.hop
        init = functools.partial(
            init_stream, self._model, batch_size=self._rows, framing=framing, warmup=warmup
        )
        self._fresh = jax.jit(init, out_shardings=batch_sharding(self._mesh))(self._variables)

    def score(self, recordings: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Scores recordings, those of about the same length side by side.

        Args:
          recordings: float32 [s] each, at least one sample, in [-1, 1] at the model's rate.

        Returns:
          Probabilities float32 [k, y] of each recording's chunks, in the order of recordings.

        Raises:
          SatError: scores are not finite.
        """
        by_length = sorted(range(len(recordings)), key=lambda index: -len(recordings[index]))
        answers: list[np.ndarray] = [np.zeros(0)] * len(recordings)
        for first in range(0, len(by_length), self._rows):
            batch = by_length[first : first + self._rows]
            scored = self._score_batch([recordings[index] for index in batch])
            for index, probs in zip(batch, scored, strict=True):
                if not np.isfinite(probs).all():
                    raise SatError(
                        "scores are not finite: the model's weights are damaged, choose others"
                    )
                answers[index] = probs
        return answers

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
        for rows, probs in self._score_rests(state, lengths - chunks * hop, chunks, len(sounds)):
            for row in rows:
                parts[row].append(probs[:, row])
        empty = np.zeros((0, self._config.num_classes), np.float32)
        return [np.concatenate([empty, *part]) for part in parts]

    def _hold(
        self,
        state: StreamState,
        sounds: Sequence[np.ndarray],
        starts: np.ndarray,
        counts: np.ndarray,
    ) -> StreamState:
        """Puts `counts` [b] samples from `starts` [b] on into the windows."""
        if not counts.any():
            return state
        samples = np.zeros((self._rows, self._framing.hop), np.float32)
        for row, sound in enumerate(sounds):
            samples[row, : counts[row]] = sound[starts[row] : starts[row] + counts[row]]
        placed = shard_batch(self._mesh, {"samples": samples, "counts": counts.astype(np.int32)})
        return _hold_samples(state, placed["samples"], placed["counts"], framing=self._framing)

    def _scan(
        self, state: StreamState, sounds: Sequence[np.ndarray], first: int, chunks: np.ndarray
    ) -> tuple[np.ndarray, StreamState]:
        """Probabilities [b, k, y] of chunks `first` and following of each stream."""
        count, hop = self._chunks_per_call, self._framing.hop
        samples = np.zeros((self._rows, count * hop), np.float32)
        for row, sound in enumerate(sounds):
            end = self._lead + min(int(chunks[row]), first + count) * hop
            heard = sound[self._lead + first * hop : max(end, 0)]
            samples[row, : len(heard)] = heard
        runs = first + np.arange(count) < chunks[:, None]
        placed = shard_batch(
            self._mesh, {"samples": samples.reshape(self._rows, count, hop), "runs": runs}
        )
        probs, state = _scan_streams(
            self._model, self._variables, state, **placed, framing=self._framing
        )
        return np.asarray(probs), state

    def _score_rests(
        self, state: StreamState, left: np.ndarray, chunks: np.ndarray, num_real: int
    ) -> Iterator[tuple[list[int], np.ndarray]]:
        """What the streams' ends leave: rows that end alike, and probabilities [k, b, y]."""
        plans: dict[PiecePlan, list[int]] = {}
        for row in range(num_real):
            filled = self._framing.margin + int(left[row])
            plan = plan_rest(self._config, self._framing, filled=filled, chunks=int(chunks[row]))
            if plan.num_whole or plan.rest:
                plans.setdefault(plan, []).append(row)
        for plan, rows in plans.items():
            # However long a chunk may be: only what is filled of it costs time and memory.
            ends = state._replace(window=state.window[:, : self._width(plan, left[rows])])
            probs = _score_ends(
                self._model, self._variables, ends, framing=self._framing, plan=plan
            )
            yield rows, np.asarray(probs)

    def _width(self, plan: PiecePlan, left: np.ndarray) -> int:
        """Samples of windows that hold so many samples each, and the frames of a plan."""
        hop, margin = self._config.frontend.hop_length, self._framing.margin
        frames = plan.num_whole * plan.length + max(plan.rest, plan.padded)
        frames = max(frames, -(-int(left.max()) // hop))
        width = -(-frames // _WIDTH_STEP) * _WIDTH_STEP * hop + 2 * margin
        return min(width, self._framing.window)


_hold_samples = jax.jit(hold_samples, static_argnames="framing")


@functools.partial(jax.jit, static_argnums=0, static_argnames="framing")
def _scan_streams(
    model: AudioTransformer,
    variables: Variables,
    state: StreamState,
    *,
    samples: jax.Array,
    runs: jax.Array,
    framing: Framing,
) -> tuple[jax.Array, StreamState]:
    """Steps [b, k, s] of streams, of which those count that run: bool [b, k].

    Returns:
      Probabilities [b, k, y], which mean nothing where a stream does not run, and the state.
    """

    def step(
        state: StreamState, inputs: tuple[jax.Array, jax.Array]
    ) -> tuple[StreamState, jax.Array]:
        block, running = inputs
        scores, moved = stream_step(model, variables, block, state, framing=framing)
        return reset_streams(moved, state, ~running), scores

    by_time = (jnp.moveaxis(samples, 1, 0), runs.T)
    state, scores = jax.lax.scan(step, state, by_time)
    return _probs(model, jnp.moveaxis(scores, 0, 1)), state


@functools.partial(jax.jit, static_argnums=0, static_argnames=("framing", "plan"))
def _score_ends(
    model: AudioTransformer,
    variables: Variables,
    state: StreamState,
    *,
    framing: Framing,
    plan: PiecePlan,
) -> jax.Array:
    return _probs(model, score_rest(model, variables, state, framing=framing, plan=plan))


def _probs(model: AudioTransformer, scores: jax.Array) -> jax.Array:
    return jax.nn.sigmoid(scores) if model.config.pooling == "logit" else scores
