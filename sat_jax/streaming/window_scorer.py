"""Clip mode for many windows of sound, in batches of few shapes."""

import collections
from collections.abc import Iterable, Iterator
from typing import NamedTuple, TypeVar

import jax
import numpy as np
from jax.sharding import Mesh

from sat_jax.config import PATCH_SIZE, Aggregation
from sat_jax.runtime.jax_modes import standard_modes
from sat_jax.runtime.sharding import make_mesh, replicated, shard_batch
from sat_jax.streaming.model import StreamingModel
from sat_jax.streaming.pieces import PiecePlan, Variables, plan_clip
from sat_jax.streaming.scored_chunk import check_finite
from sat_jax.streaming.stream_scorer import WIDTH_STEP, rows_per_call

Key = TypeVar("Key")


class _Shape(NamedTuple):
    """Shape of the windows that share a compiled program.

    Attributes:
      plan: their pieces.
      width: samples they are padded to. It covers the frames that the model ignores too, because
        the floor of the spectrogram follows the maximum of all frames.
    """

    plan: PiecePlan
    width: int


class WindowScorer:
    """Scores many windows in clip mode, spread over devices.

    The probabilities of a window are those of `Tagger.clip` and do not depend on other windows.
    """

    def __init__(
        self,
        streams: StreamingModel,
        variables: Variables,
        *,
        batch_size: int,
        aggregation: Aggregation = "mean",
        mesh: Mesh | None = None,
    ) -> None:
        """Makes a scorer.

        Args:
          streams: the model; its framing does not matter.
          variables: its weights.
          batch_size: windows in a call, fewer if they are longer than 12 s; rounded up to a
            multiple of the devices.
          aggregation: how the outputs of a window's pieces become one.
          mesh: the devices; None is the first one.
        """
        self._streams = streams
        self._frontend = streams.config.frontend
        self._mesh = mesh or make_mesh(jax.local_devices()[:1])
        with standard_modes():
            self._variables = jax.device_put(variables, replicated(self._mesh))
        self._batch_size = batch_size
        self._aggregation = aggregation
        # As in `Tagger.clip`, silence follows a window that is shorter than a patch.
        self._shortest = PATCH_SIZE * self._frontend.hop_length

    def score(self, windows: Iterable[tuple[Key, np.ndarray]]) -> Iterator[tuple[Key, np.ndarray]]:
        """Scores windows.

        Args:
          windows: any key, and float32 [s] in [-1, 1] at the model's rate.

        Yields:
          Each key with its window's probabilities float32 [y], in another order.

        Raises:
          SatError: probabilities are not finite.
        """
        waiting = collections.defaultdict[_Shape, list[tuple[Key, np.ndarray]]](list)
        for key, samples in windows:
            shape = self._shape(len(samples))
            waiting[shape].append((key, samples))
            if len(waiting[shape]) == self._rows(shape):
                yield from self._score_batch(shape, waiting.pop(shape))
        for shape, batch in waiting.items():
            yield from self._score_batch(shape, batch)

    def _shape(self, num_samples: int) -> _Shape:
        frames = self._frontend.num_frames(max(num_samples, self._shortest))
        plan = plan_clip(self._streams.config, frames)
        frames = max(frames, plan.num_whole * plan.length + plan.padded)
        width = -(-frames // WIDTH_STEP) * WIDTH_STEP * self._frontend.hop_length
        # A last piece is cut at its padded length: frames past the window's end are zeros.
        return _Shape(plan._replace(rest=plan.padded), width)

    def _rows(self, shape: _Shape) -> int:
        """Returns the windows in a call, as many on every device."""
        return rows_per_call(self._batch_size, shape.width / self._frontend.sample_rate, self._mesh)

    def _score_batch(
        self, shape: _Shape, batch: list[tuple[Key, np.ndarray]]
    ) -> Iterator[tuple[Key, np.ndarray]]:
        rows, width = self._rows(shape), shape.width
        waveform = np.zeros((rows, width), np.float32)
        num_samples = np.full(rows, width, np.int32)
        for row, (_, samples) in enumerate(batch):
            waveform[row, : len(samples)] = samples
            num_samples[row] = max(len(samples), self._shortest)
        with standard_modes():
            placed = shard_batch(self._mesh, {"waveform": waveform, "num_samples": num_samples})
            probs = self._streams.clip(
                self._variables, **placed, plan=shape.plan, aggregation=self._aggregation
            )
            scored = check_finite(np.asarray(probs)[: len(batch)])
        for (key, _), window_probs in zip(batch, scored, strict=True):
            yield key, window_probs
