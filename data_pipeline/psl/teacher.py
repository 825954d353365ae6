"""A model that scores windows of sound, each as if it were alone (floor 5).

Never imported by sat_jax; it only serves to make pseudo strong labels.
"""

import collections
import functools
import hashlib
from collections.abc import Iterable, Iterator
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from data_pipeline.sources.bounds import SAMPLE_RATE
from sat_jax.cache import init_cache
from sat_jax.config import PATCH_SIZE, ModelConfig
from sat_jax.errors import SatError
from sat_jax.frontend import log_mel
from sat_jax.models.clip import Variables, aggregate, normalize, plan_pieces, run_pieces
from sat_jax.models.transformer import AudioTransformer
from sat_jax.tagger import Tagger

Key = TypeVar("Key")


class Teacher:
    """Clip mode on many windows at once, in batches of one shape."""

    def __init__(self, tagger: Tagger, *, window_samples: int, batch_size: int) -> None:
        """Makes a teacher.

        Args:
          tagger: the model.
          window_samples: samples in the longest window.
          batch_size: windows in a call; windows of about the same length share one.

        Raises:
          SatError: the model hears another rate than that of the sources.
        """
        rate = tagger.config.frontend.sample_rate
        if rate != SAMPLE_RATE:
            raise SatError(f"the model hears {rate} Hz, clips have {SAMPLE_RATE}: choose another")
        self._config = tagger.config
        self._model = AudioTransformer(tagger.config)
        self._variables = tagger.variables
        # Tagger too gives what is shorter than a patch silence behind it.
        self._shortest = PATCH_SIZE * tagger.config.frontend.hop_length
        self._width = max(window_samples, self._shortest)
        self._batch_size = batch_size

    def score(self, windows: Iterable[tuple[Key, np.ndarray]]) -> Iterator[tuple[Key, np.ndarray]]:
        """Scores windows.

        Args:
          windows: any key, and float32 [s] of at most the longest window's samples.

        Yields:
          Each key with its window's probabilities float32 [y]; in another order.

        Raises:
          SatError: scores are not finite.
        """
        waiting = collections.defaultdict[int, list[tuple[Key, np.ndarray]]](list)
        for key, samples in windows:
            batch = waiting[self._frames(len(samples))]
            batch.append((key, samples))
            if len(batch) == self._batch_size:
                yield from self._score_batch(self._frames(len(samples)), batch)
                batch.clear()
        for frames, batch in waiting.items():
            if batch:
                yield from self._score_batch(frames, batch)

    def fingerprint(self) -> str:
        """A short text that changes when weights do."""
        digest = hashlib.sha256(repr(self._config).encode())
        for leaf in jax.tree.leaves(self._variables):
            digest.update(np.asarray(leaf).tobytes())
        return digest.hexdigest()[:16]

    def _frames(self, num_samples: int) -> int:
        """Frames that the model looks at: windows of equal number share a compiled program."""
        frames = self._config.frontend.num_frames(max(num_samples, self._shortest))
        plan = plan_pieces(self._config, frames)
        if plan.num_whole == 1 and not plan.rest:
            return plan.length - plan.length % PATCH_SIZE
        return frames

    def _score_batch(
        self, frames: int, batch: list[tuple[Key, np.ndarray]]
    ) -> Iterator[tuple[Key, np.ndarray]]:
        waveform = np.zeros((self._batch_size, self._width), np.float32)
        num_samples = np.full(self._batch_size, self._width, np.int32)
        for row, (_, samples) in enumerate(batch):
            waveform[row, : len(samples)] = samples
            num_samples[row] = max(len(samples), self._shortest)
        probs = np.asarray(
            _score_windows(self._model, self._variables, waveform, num_samples, frames=frames)
        )
        if not np.isfinite(probs[: len(batch)]).all():
            raise SatError("scores are not finite: the model's weights are damaged, choose others")
        for (key, _), answer in zip(batch, probs, strict=False):
            yield key, answer


@functools.partial(jax.jit, static_argnums=0, static_argnames="frames")
def _score_windows(
    model: AudioTransformer,
    variables: Variables,
    waveform: jax.Array,
    num_samples: jax.Array,
    *,
    frames: int,
) -> jax.Array:
    """Clip mode on float32 [b, s], of which num_samples [b] are sound -> probabilities [b, y]."""
    config: ModelConfig = model.config
    # All samples count for the floor under the maximum, also those behind the last whole patch.
    spectrogram = log_mel(waveform, config.frontend, num_samples=num_samples)[..., :frames]
    cache = init_cache(config, waveform.shape[0], "kv")
    scores, _ = run_pieces(model, variables, normalize(model, variables, spectrogram), cache)
    answer = aggregate(scores, "mean")
    return jax.nn.sigmoid(answer) if config.pooling == "logit" else jnp.asarray(answer)
