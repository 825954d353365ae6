"""Scores of a model on the validation clips during training."""

import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NotRequired, TypedDict

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from sat_jax.config import AnyConfig, MaeConfig
from sat_jax.errors import SatError
from sat_jax.metrics.ranking import compute_metrics
from sat_jax.models.frontend import log_mel
from sat_jax.models.mae import MaskedAutoencoder
from sat_jax.models.transformer import AudioTransformer
from sat_jax.runtime.sharding import shard_batch
from sat_jax.streaming.clip import score_clips
from sat_jax.streaming.pieces import Variables, apply, plan_pieces, to_probs
from sat_jax.training.losses import mae_loss
from sat_jax.training.objectives import mask_noise
from sat_jax.training.processes import gather


class ValidationBatch(TypedDict):
    """Whole clips, padded to one length. All processes have equally many batches of one size.

    Attributes:
      waveform: float32 [b, s]; zeros after the end of a clip.
      num_samples: int32 [b], samples of each clip.
      is_real: bool [b]; False for rows that only fill up a batch and are not counted.
      target: float32 [b, y], 1 for the classes of a clip; not used by an autoencoder.
    """

    waveform: np.ndarray
    num_samples: np.ndarray
    is_real: np.ndarray
    target: NotRequired[np.ndarray]


ValidationSource = Callable[[], Iterator[ValidationBatch]]
"""Returns the validation clips, each once, from the first on."""

Validator = Callable[[Any, Iterable[ValidationBatch]], dict[str, float]]
"""From a variable tree and the clips to numbers by name; "score" ranks the models of a run."""


@functools.cache  # A run that is resumed in the same process is not compiled again.
def make_validator(config: AnyConfig, mesh: Mesh) -> Validator:
    """Returns a function that scores a model on clips.

    The score of a tagger is mAP in clip mode, with the mean of the chunks' probabilities. The score
    of an autoencoder is its negative loss, with the same patches masked each time.

    Args:
      config: the model.
      mesh: the devices that share a batch.

    Returns:
      The function; it raises `SatError` if there are no clips.
    """
    if isinstance(config, MaeConfig):
        return _autoencoder_validator(config, mesh)
    return _tagger_validator(AudioTransformer(config), mesh)


def _tagger_validator(model: AudioTransformer, mesh: Mesh) -> Validator:
    probs_of_clips = jax.jit(functools.partial(mean_probs, model))

    def validate(variables: Any, batches: Iterable[ValidationBatch]) -> dict[str, float]:
        scores: list[np.ndarray] = []
        targets: list[np.ndarray] = []
        for batch in batches:
            placed = shard_batch(mesh, batch)  # type: ignore[arg-type]
            probs = probs_of_clips(variables, placed["waveform"], placed["num_samples"])
            probs, target, is_real = gather((probs, placed["target"], placed["is_real"]))
            scores.append(probs[is_real])
            targets.append(target[is_real] > 0.5)
        if not scores:
            raise SatError("there are no validation clips")
        metrics = compute_metrics(np.concatenate(targets), np.concatenate(scores))
        mean_ap = metrics.mean_average_precision
        return {"score": mean_ap, "mAP": mean_ap, "clips": float(metrics.num_clips)}

    return validate


def mean_probs(
    model: AudioTransformer, variables: Variables, waveform: jax.Array, num_samples: jax.Array
) -> jax.Array:
    """Returns the mean probabilities of the pieces of clips of different lengths.

    A piece counts where it lies inside its clip; the first one always does. A clip shorter than a
    piece is followed by silence.

    Args:
      model: the network.
      variables: its weights.
      waveform: float32 [b, s], zeros past a clip's end.
      num_samples: int32 [b].

    Returns:
      float32 [b, y].
    """
    config = model.config
    probs = to_probs(config, score_clips(model, variables, waveform, num_samples))
    frames = config.frontend.num_frames(num_samples)
    length = plan_pieces(config, config.frontend.num_frames(waveform.shape[1])).length
    # With pad_last a piece counts from its first frame on, else only when it is whole.
    needed = jnp.arange(probs.shape[0]) * length + (1 if config.pad_last else length)
    counts = (needed[:, None] <= frames[None, :]).at[0].set(True)
    return jnp.where(counts[..., None], probs, 0.0).sum(0) / counts.sum(0)[:, None]


def _autoencoder_validator(config: MaeConfig, mesh: Mesh) -> Validator:
    model = MaskedAutoencoder(config)

    @jax.jit
    def losses(variables: Any, waveform: jax.Array, num_samples: jax.Array) -> jax.Array:
        """Returns the loss of each clip, [b]."""
        spectrogram = log_mel(waveform, config.encoder.frontend, num_samples=num_samples)
        noise = mask_noise(config.encoder, spectrogram, jax.random.key(0))
        prediction, target, mask = apply(model, variables, spectrogram, noise)
        one = functools.partial(mae_loss, normalize_target=config.normalize_target)
        return jax.vmap(lambda p, t, m: one(p, t, mask=m))(prediction, target, mask)

    def validate(variables: Any, batches: Iterable[ValidationBatch]) -> dict[str, float]:
        total, count = 0.0, 0
        for batch in batches:
            arrays = {name: array for name, array in batch.items() if name != "target"}
            placed = shard_batch(mesh, arrays)  # type: ignore[arg-type]
            loss = losses(variables, placed["waveform"], placed["num_samples"])
            loss, is_real = gather((loss, placed["is_real"]))
            total, count = total + float(loss[is_real].sum()), count + int(is_real.sum())
        if not count:
            raise SatError("there are no validation clips")
        return {"score": -total / count, "validation_loss": total / count, "clips": float(count)}

    return validate
