"""Stream mode for many recordings, in batches of one shape."""

import functools
from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import Mesh

from sat_jax.config import PATCH_SIZE, Warmup
from sat_jax.runtime.jax_modes import standard_modes
from sat_jax.runtime.sharding import batch_sharding, make_mesh, replicated, shard_batch
from sat_jax.streaming.ends import Ends, gather_ends
from sat_jax.streaming.model import StreamingModel
from sat_jax.streaming.pieces import Variables
from sat_jax.streaming.scored_chunk import check_finite
from sat_jax.streaming.state import ModelState
from sat_jax.streaming.windows import cut_windows

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
        seconds = self._framing.hop / streams.config.frontend.sample_rate
        self._rows = rows_per_call(batch_size, seconds, self._mesh)
        self._chunks_per_call = max(1, round(_SECONDS_PER_CALL / seconds))
        init = functools.partial(streams.init, batch_size=self._rows, warmup=warmup)
        with standard_modes():
            self._variables = jax.device_put(variables, replicated(self._mesh))
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
            with standard_modes():
                probs_of_batch = self._score_batch([recordings[index] for index in batch])
            for index, probs in zip(batch, probs_of_batch, strict=True):
                scored[index] = check_finite(probs)
        return scored

    def _score_batch(self, sounds: Sequence[np.ndarray]) -> list[np.ndarray]:
        # Silent rows of no length fill the batch.
        filler = [np.zeros(0, np.float32)] * (self._rows - len(sounds))
        windows, rests = zip(*(self._cut(sound) for sound in [*sounds, *filler]), strict=True)
        chunks = [len(each) for each in windows]
        parts: list[list[np.ndarray]] = [[] for _ in range(self._rows)]
        state = self._fresh
        for first in range(0, max(chunks), self._chunks_per_call):
            probs, state = self._scan(state, [each[first:] for each in windows])
            for part, row_probs, count in zip(parts, probs, chunks, strict=True):
                part.append(row_probs[: max(0, count - first)])
        for part, last in zip(parts, self._finish(state, rests, chunks), strict=True):
            part.append(last)
        return [np.concatenate(part) for part in parts[: len(sounds)]]

    def _cut(self, sound: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns a recording's windows [k, s], and the samples that are left after them."""
        margin = np.zeros(self._framing.margin, np.float32)
        return cut_windows(self._framing, np.concatenate([margin, sound]), begins=True)

    def _scan(
        self, state: ModelState, windows: Sequence[np.ndarray]
    ) -> tuple[np.ndarray, ModelState]:
        """Returns the probabilities [b, k, y] of each stream's next chunks, and the state."""
        count = self._chunks_per_call
        taken = np.zeros((self._rows, count, self._framing.window), np.float32)
        active = np.zeros((self._rows, count), bool)
        for row, each in enumerate(windows):
            taken[row, : len(each)] = each[:count]
            active[row, : len(each)] = True
        placed = shard_batch(self._mesh, {"windows": taken, "active": active})
        probs, state = _scan_rows(self._streams, self._variables, state, **placed)
        return np.asarray(probs), state

    def _finish(
        self, state: ModelState, rests: Sequence[np.ndarray], chunks: Sequence[int]
    ) -> list[np.ndarray]:
        """Returns the probabilities [k, y] of the chunks that each stream has left."""
        ends = gather_ends(self._streams.config, self._framing, rests, chunks)
        left = ends.num_chunks(self._framing)
        if not left.any():
            return [np.zeros((0, self._streams.config.num_classes), np.float32)] * self._rows
        placed = Ends(**shard_batch(self._mesh, ends._asdict()))
        probs = np.asarray(self._streams.finish(self._variables, placed, state))
        return [probs[:count, row] for row, count in enumerate(left)]


@functools.partial(jax.jit, static_argnums=0)
def _scan_rows(
    streams: StreamingModel,
    variables: Variables,
    state: ModelState,
    *,
    windows: jax.Array,
    active: jax.Array,
) -> tuple[jax.Array, ModelState]:
    """Runs `StreamingModel.scan` on windows [b, k, s], whose rows devices can share."""
    probs, state = streams.scan(variables, windows.swapaxes(0, 1), state, active.T)
    return probs.swapaxes(0, 1), state
