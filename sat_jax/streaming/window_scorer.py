"""Many windows of sound, each scored as if it were alone."""

import collections
import functools
from collections.abc import Iterable, Iterator
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from sat_jax.config import PATCH_SIZE, ModelConfig
from sat_jax.errors import SatError
from sat_jax.models.cache import init_cache
from sat_jax.models.frontend import log_mel
from sat_jax.models.transformer import AudioTransformer
from sat_jax.runtime.sharding import make_mesh, replicated, shard_batch
from sat_jax.streaming.pieces import (
    Aggregation,
    PiecePlan,
    Variables,
    aggregate,
    normalize,
    only_heard,
    plan_pieces,
    run_pieces,
)

Key = TypeVar("Key")

_LONG_SECONDS = 12.0
"""Batches of longer windows have fewer rows, so that memory stays about the same."""


_WIDTH_STEP = 2 * PATCH_SIZE
"""Windows are padded to a multiple of so many frames."""


class _Shape(NamedTuple):
    """What windows that share a compiled program have in common.

    Attributes:
      plan: what is heard of them.
      width: samples they are padded to. It covers what is not heard too, for the floor of the
        spectrogram lies under the maximum of all.
    """

    plan: PiecePlan
    width: int


class WindowScorer:
    """Clip mode on many windows at once, spread over devices, in batches of few shapes.

    A window's answer is that of clip mode on it alone; it does not depend on its neighbours.
    """

    def __init__(
        self,
        config: ModelConfig,
        variables: Variables,
        *,
        batch_size: int,
        aggregation: Aggregation = "mean",
        mesh: Mesh | None = None,
    ) -> None:
        """Makes a scorer.

        Args:
          config: the model.
          variables: its weights.
          batch_size: windows of up to 12 s in a call, of longer ones fewer; rounded up to a
            multiple of the devices.
          aggregation: how the answers of a window's pieces become one.
          mesh: the devices that windows are spread over; None is the first one.
        """
        self._config = config
        self._model = AudioTransformer(config)
        self._mesh = mesh or make_mesh(jax.local_devices()[:1])
        self._variables = jax.device_put(variables, replicated(self._mesh))
        self._batch_size = batch_size
        self._aggregation = aggregation
        # Tagger too gives what is shorter than a patch silence behind it.
        self._shortest = PATCH_SIZE * config.frontend.hop_length

    def score(self, windows: Iterable[tuple[Key, np.ndarray]]) -> Iterator[tuple[Key, np.ndarray]]:
        """Scores windows.

        Args:
          windows: any key, and float32 [s] in [-1, 1] at the model's rate.

        Yields:
          Each key with its window's probabilities float32 [y]; in another order.

        Raises:
          SatError: scores are not finite.
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
        frames = self._config.frontend.num_frames(max(num_samples, self._shortest))
        plan = only_heard(plan_pieces(self._config, frames))
        frames = max(frames, plan.num_whole * plan.length + plan.padded)
        width = -(-frames // _WIDTH_STEP) * _WIDTH_STEP * self._config.frontend.hop_length
        # Zeros stand for the frames that a last piece lacks, however many.
        return _Shape(plan._replace(rest=plan.padded), width)

    def _rows(self, shape: _Shape) -> int:
        """Windows in a call, as many on every device."""
        usual = int(_LONG_SECONDS * self._config.frontend.sample_rate)
        rows = max(1, self._batch_size * usual // max(usual, shape.width))
        return -(-rows // self._mesh.size) * self._mesh.size

    def _score_batch(
        self, shape: _Shape, batch: list[tuple[Key, np.ndarray]]
    ) -> Iterator[tuple[Key, np.ndarray]]:
        rows, width = self._rows(shape), shape.width
        waveform = np.zeros((rows, width), np.float32)
        num_samples = np.full(rows, width, np.int32)
        for row, (_, samples) in enumerate(batch):
            waveform[row, : len(samples)] = samples
            num_samples[row] = max(len(samples), self._shortest)
        placed = shard_batch(self._mesh, {"waveform": waveform, "num_samples": num_samples})
        answers = _score_windows(
            self._model, self._variables, **placed, plan=shape.plan, aggregation=self._aggregation
        )
        probs = np.asarray(answers)[: len(batch)]
        if not np.isfinite(probs).all():
            raise SatError("scores are not finite: the model's weights are damaged, choose others")
        for (key, _), answer in zip(batch, probs, strict=True):
            yield key, answer


@functools.partial(jax.jit, static_argnums=0, static_argnames=("plan", "aggregation"))
def _score_windows(
    model: AudioTransformer,
    variables: Variables,
    *,
    waveform: jax.Array,
    num_samples: jax.Array,
    plan: PiecePlan,
    aggregation: Aggregation,
) -> jax.Array:
    """Clip mode on float32 [b, s], of which num_samples [b] are sound -> probabilities [b, y]."""
    frontend = model.config.frontend
    spectrogram = log_mel(waveform, frontend, num_samples=num_samples)
    normalized = normalize(model, variables, spectrogram)
    is_heard = jnp.arange(spectrogram.shape[-1]) < frontend.num_frames(num_samples)[:, None]
    normalized = jnp.where(is_heard[:, None], normalized, 0.0)
    cache = init_cache(model.config, waveform.shape[0], "kv")
    scores, _ = run_pieces(model, variables, normalized, cache, plan=plan)
    answer = aggregate(scores, aggregation)
    return jax.nn.sigmoid(answer) if model.config.pooling == "logit" else answer
