"""What the ends of streams leave in their windows, scored by one program whatever their lengths."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sat_jax.config import PATCH_SIZE, ModelConfig
from sat_jax.models.cache import Cache
from sat_jax.models.frontend import floor_top_db, framed_power_db, peak_of
from sat_jax.models.transformer import AudioTransformer
from sat_jax.streaming.framing import Framing
from sat_jax.streaming.pieces import (
    Variables,
    apply,
    normalize,
    plan_pieces,
    plan_rest,
    zero_past_end,
)


class Ends(NamedTuple):
    """The ends of b streams: arrays whose shapes depend on the framing only.

    Attributes:
      samples: float32 [b, s], what waits in each window, with mirrored edges; zeros follow.
      num_frames: int32 [b], frames of the spectrogram of `samples`.
      frames: int32 [b, k], frames in each piece.
      columns: int32 [b, k], time patches of each piece, 0 where a stream has no such piece.
    """

    samples: Any
    num_frames: Any
    frames: Any
    columns: Any

    def num_chunks(self, framing: Framing) -> np.ndarray:
        """Returns int [b], the chunks that each stream has left: with chunk framing at most one."""
        pieces: np.ndarray = (self.columns > 0).sum(1)
        return pieces if framing.kind == "seamless" else np.minimum(pieces, 1)


def pieces_at_end(config: ModelConfig, framing: Framing) -> tuple[int, int]:
    """Returns the most pieces that the end of a stream can have, and the frames of the longest."""
    if framing.kind == "seamless":
        return (2 if config.pad_last else 1), framing.hop // config.frontend.hop_length
    plan = plan_pieces(config, config.frontend.num_frames(framing.hop))
    return plan.num_whole + bool(plan.rest), min(plan.length, config.target_length)


def gather_ends(
    config: ModelConfig, framing: Framing, rests: Sequence[np.ndarray], chunks: Sequence[int]
) -> Ends:
    """Gathers what waits at the ends of streams, which may be at different points.

    Args:
      config: the model.
      framing: of the streams.
      rests: float32 [s] of each stream, from `cut_windows`.
      chunks: chunks that each stream completed.
    """
    frontend, count = config.frontend, len(rests)
    half, most = frontend.n_fft // 2, pieces_at_end(config, framing)[0]
    ends = Ends(
        samples=np.zeros((count, framing.window + frontend.n_fft), np.float32),
        num_frames=np.ones(count, np.int32),
        frames=np.zeros((count, most), np.int32),
        columns=np.zeros((count, most), np.int32),
    )
    for row, (rest, done) in enumerate(zip(rests, chunks, strict=True)):
        plan = plan_rest(config, framing, filled=len(rest), chunks=done)
        if plan.is_empty:
            continue
        before = framing.margin
        if done == 0 or framing.kind == "chunk":
            # A recording, or a chunk of its own, that is under one patch ends with silence.
            rest, before = rest[before:], 0
            rest = np.pad(rest, (0, max(0, PATCH_SIZE * frontend.hop_length - len(rest))))
        mirrored = np.pad(rest, (0 if before else half, frontend.n_fft - half), mode="reflect")
        ends.samples[row, : len(mirrored)] = mirrored
        ends.num_frames[row] = frontend.num_frames(len(rest) - before)
        for piece, (frames, length) in enumerate(plan.lengths):
            ends.frames[row, piece] = frames
            ends.columns[row, piece] = min(length // PATCH_SIZE, config.time_positions)
    return ends


def score_ends(
    model: AudioTransformer,
    variables: Variables,
    ends: Ends,
    cache: Cache,
    peak_db: jax.Array,
    *,
    framing: Framing,
) -> jax.Array:
    """Runs the model on the pieces of the ends.

    Args:
      model: the network.
      variables: its weights.
      ends: from `gather_ends`.
      cache: of the streams after their last chunk.
      peak_db: float32 [b], loudest value of each stream so far; it counts with seamless framing.
      framing: of the streams.

    Returns:
      The model's outputs [k, b, y]; zeros where a stream has no such piece.
    """
    frontend = model.config.frontend
    power_db = framed_power_db(ends.samples, frontend)
    peak = peak_of(power_db, ends.num_frames)
    if framing.kind == "seamless":
        peak = jnp.maximum(peak, peak_db)
    normalized = normalize(model, variables, floor_top_db(power_db, peak, frontend))
    count, length = pieces_at_end(model.config, framing)
    batch, bins, frames = normalized.shape
    missing = max(0, count * length - frames)
    fitting = jnp.pad(normalized, ((0, 0), (0, 0), (0, missing)))[..., : count * length]
    pieces = fitting.reshape(batch, bins, count, length).transpose(2, 0, 1, 3)
    num_outputs = model.config.num_classes + model.embeds * model.config.width
    no_scores = jnp.zeros((batch, num_outputs), jnp.float32)

    def call(
        cache: Cache, inputs: tuple[jax.Array, jax.Array, jax.Array]
    ) -> tuple[Cache, jax.Array]:
        piece, frames, columns = inputs
        num_columns = jnp.maximum(columns, 1)
        piece = zero_past_end(piece, frames)
        scores, cache = apply(model, variables, piece, cache, num_columns=num_columns)
        return cache, jnp.where(columns[:, None] > 0, scores, 0.0)

    def call_if_any(
        cache: Cache, inputs: tuple[jax.Array, jax.Array, jax.Array]
    ) -> tuple[Cache, jax.Array]:
        skip = (inputs[-1] == 0).all()
        return jax.lax.cond(skip, lambda cache, _: (cache, no_scores), call, cache, inputs)

    inputs = (pieces, ends.frames.T, ends.columns.T)
    if count == 1:  # A loop of one round would only cost compile time and memory.
        return call(cache, jax.tree.map(lambda x: x[0], inputs))[1][None]
    return jax.lax.scan(call_if_any, cache, inputs)[1]
