"""How good the weights of a run are on clips it does not learn from."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
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
from sat_jax.streaming.pieces import apply, ragged_clip_probs
from sat_jax.training.checkpoints import gather
from sat_jax.training.losses import mae_loss
from sat_jax.training.objectives import mask_noise


class ValidationBatch(TypedDict):
    """Whole clips, padded to one length; every process has as many batches of the same size.

    Attributes:
      waveform: float32 [b, s]; zeros behind a clip's end.
      num_samples: int32 [b], samples of each clip.
      is_real: bool [b]; rows that only fill up the last batches are not counted.
      target: float32 [b, y], 1 where a class is heard; an autoencoder needs none.
    """

    waveform: np.ndarray
    num_samples: np.ndarray
    is_real: np.ndarray
    target: NotRequired[np.ndarray]


ValidationSource = Callable[[], Iterator[ValidationBatch]]
"""Gives the validation clips, each once, from the beginning."""

Measure = Callable[[Any, Iterable[ValidationBatch]], dict[str, float]]
"""From a variable tree and the clips to numbers by name; the first one, "score", ranks models."""


def make_measure(config: AnyConfig, mesh: Mesh) -> Measure:
    """Compiles what is measured of a kind of model.

    Taggers are heard in clip mode (pieces with the cache carried along, mean of their answers) and
    ranked by mAP, autoencoders by their loss with the same patches hidden each time.

    Args:
      config: the model.
      mesh: the devices that clips are spread over.
    """
    if isinstance(config, MaeConfig):
        return _measure_autoencoder(config, mesh)
    return _measure_tagger(AudioTransformer(config), mesh)


def _measure_tagger(model: AudioTransformer, mesh: Mesh) -> Measure:
    score_clips = jax.jit(partial(ragged_clip_probs, model))

    def measure(variables: Any, batches: Iterable[ValidationBatch]) -> dict[str, float]:
        scores: list[np.ndarray] = []
        targets: list[np.ndarray] = []
        for batch in batches:
            placed = shard_batch(mesh, batch)  # type: ignore[arg-type]
            probs = score_clips(variables, placed["waveform"], placed["num_samples"])
            probs, target, is_real = gather((probs, placed["target"], placed["is_real"]))
            scores.append(probs[is_real])
            targets.append(target[is_real] > 0.5)
        if not scores:
            raise SatError("there are no validation clips to measure the model on")
        metrics = compute_metrics(np.concatenate(targets), np.concatenate(scores))
        mean_ap = metrics.mean_average_precision
        return {"score": mean_ap, "mAP": mean_ap, "clips": float(metrics.num_clips)}

    return measure


def _measure_autoencoder(config: MaeConfig, mesh: Mesh) -> Measure:
    model = MaskedAutoencoder(config)

    @jax.jit
    def losses(variables: Any, waveform: jax.Array, num_samples: jax.Array) -> jax.Array:
        """[b], each clip's own loss."""
        spectrogram = log_mel(waveform, config.encoder.frontend, num_samples=num_samples)
        noise = mask_noise(config.encoder, spectrogram, jax.random.key(0))
        prediction, target, mask = apply(model, variables, spectrogram, noise)
        one = partial(mae_loss, normalize_target=config.normalize_target)
        return jax.vmap(lambda p, t, m: one(p, t, mask=m))(prediction, target, mask)

    def measure(variables: Any, batches: Iterable[ValidationBatch]) -> dict[str, float]:
        total, count = 0.0, 0
        for batch in batches:
            shown = {k: v for k, v in batch.items() if k != "target"}
            placed = shard_batch(mesh, shown)  # type: ignore[arg-type]
            loss = losses(variables, placed["waveform"], placed["num_samples"])
            loss, is_real = gather((loss, placed["is_real"]))
            total, count = total + float(loss[is_real].sum()), count + int(is_real.sum())
        if not count:
            raise SatError("there are no validation clips to measure the model on")
        return {"score": -total / count, "validation_loss": total / count, "clips": float(count)}

    return measure


def first_shape(variables: Any) -> Any:
    """Shapes, types and places of a variable tree, for reading one like it."""
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, jnp.float32, sharding=x.sharding), variables
    )
