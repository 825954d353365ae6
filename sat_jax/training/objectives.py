"""Training objectives: the loss of a batch as a function of the weights."""

from collections.abc import Callable
from typing import Any, NamedTuple, NotRequired, TypedDict

import jax
import jax.numpy as jnp

from sat_jax.config import PATCH_SIZE, MaeConfig, ModelConfig
from sat_jax.models.cache import Cache, init_cache
from sat_jax.models.frontend import log_mel
from sat_jax.models.mae import MaskedAutoencoder
from sat_jax.models.transformer import INPUT_NORM_MOMENTUM, AudioTransformer
from sat_jax.streaming.pieces import Variables, normalize, to_probs, warm_cache
from sat_jax.training.augment import change_waveforms, mixup, spec_augment
from sat_jax.training.config import TrainConfig
from sat_jax.training.losses import binary_cross_entropy, mae_loss
from sat_jax.training.window import run_window


class Arrays(TypedDict):
    """A batch on the devices.

    Attributes:
      waveform: float32 [b, s] in [-1, 1] at the model's sample rate.
      target: float32 [b, y] or, chunk by chunk, [b, k, y], in [0, 1]; not used by an autoencoder.
    """

    waveform: jax.Array
    target: NotRequired[jax.Array]


class Outputs(NamedTuple):
    """Results of a batch other than the loss.

    Attributes:
      probs: float32 [b, y], mean over the chunks of a window; None for an autoencoder.
      batch_stats: new running statistics of BatchNorm; empty for a model without it.
    """

    probs: jax.Array | None
    batch_stats: Any


Objective = Callable[[Any, Any, Arrays, jax.Array], tuple[jax.Array, Outputs]]
"""From weights, running statistics, batch and random key to loss and outputs."""


def make_objective(config: TrainConfig) -> Objective:
    """Returns the objective of a run, to be differentiated by the weights."""
    if isinstance(config.model, MaeConfig):
        return _autoencoder_objective(config, MaskedAutoencoder(config.model))
    return _tagging_objective(config, AudioTransformer(config.model))


def _tagging_objective(config: TrainConfig, model: AudioTransformer) -> Objective:
    """Returns the binary cross-entropy of a tagger's probabilities as an objective.

    The log-mel of the whole window is computed and normalised, then cut into chunks. Gradients
    reach the projections of cached tokens, but not the chunks that these tokens come from.
    """

    def objective(
        params: Any, batch_stats: Any, batch: Arrays, key: jax.Array
    ) -> tuple[jax.Array, Outputs]:
        keys = iter(jax.random.split(key, 6))
        variables = {"params": params, "batch_stats": batch_stats}
        frontend, augment = model.config.frontend, config.augment
        waveform = change_waveforms(
            next(keys), batch["waveform"], augment, sample_rate=frontend.sample_rate
        )
        target, mix_key = batch["target"], next(keys)
        if augment.mixup:
            waveform, target = mixup(mix_key, waveform, target, augment.mixup)
        spectrogram = log_mel(waveform, frontend)
        if config.frozen_input_norm:
            spectrogram = normalize(model, variables, spectrogram)
        else:
            spectrogram, batch_stats = _normalize_batch(model, variables, spectrogram)
        spectrogram = spec_augment(next(keys), spectrogram, augment)
        cache = _first_cache(model, variables, len(waveform), config.silence_share, next(keys))
        rngs = {"dropout": next(keys), "patchout": next(keys)}
        scores = run_window(model, variables, spectrogram, cache, rngs=rngs)
        probs = to_probs(model.config, scores)
        loss = tagging_loss(probs, target, per_chunk=config.loss_per_chunk)
        return loss, Outputs(probs.mean(0), batch_stats)

    return objective


def tagging_loss(probs: jax.Array, target: jax.Array, *, per_chunk: bool) -> jax.Array:
    """Returns the binary cross-entropy of windows of k chunks.

    Args:
      probs: float32 [k, b, y].
      target: float32 [b, y], or [b, k, y] chunk by chunk.
      per_chunk: whether each chunk is compared with its target. Otherwise the means over the chunks
        are compared.
    """
    by_chunk = target[None] if target.ndim == 2 else target.swapaxes(0, 1)
    if per_chunk:
        return binary_cross_entropy(probs, jnp.broadcast_to(by_chunk, probs.shape))
    return binary_cross_entropy(probs.mean(0), by_chunk.mean(0))


def _first_cache(
    model: AudioTransformer,
    variables: Variables,
    batch_size: int,
    silence_share: float,
    key: jax.Array,
) -> Cache:
    """Returns empty caches; a random share of the examples starts with silence instead."""
    # In form "tokens", since gradients must reach the projections of the past.
    if not silence_share:
        return Cache((), jnp.zeros((batch_size,), jnp.int32))
    cache = init_cache(model.config, batch_size, "tokens")
    silent = warm_cache(model, jax.lax.stop_gradient(variables), cache)
    chosen = jax.random.bernoulli(key, silence_share, (batch_size,))
    return silent._replace(num_real=jnp.where(chosen, silent.num_real, 0))


def _autoencoder_objective(config: TrainConfig, model: MaskedAutoencoder) -> Objective:
    """Returns the squared error of masked patches as an objective; see `mae_loss`."""

    def objective(
        params: Any, batch_stats: Any, batch: Arrays, key: jax.Array
    ) -> tuple[jax.Array, Outputs]:
        wave_key, noise_key, dropout_key = jax.random.split(key, 3)
        frontend = model.config.encoder.frontend
        waveform = change_waveforms(
            wave_key, batch["waveform"], config.augment, sample_rate=frontend.sample_rate
        )
        spectrogram = log_mel(waveform, frontend)
        noise = mask_noise(model.config.encoder, spectrogram, noise_key)
        (prediction, target, mask), changed = model.apply(
            {"params": params, "batch_stats": batch_stats},
            spectrogram,
            noise,
            train=True,
            rngs={"dropout": dropout_key},
            mutable=["batch_stats"],
        )
        loss = mae_loss(
            prediction, target, mask=mask, normalize_target=model.config.normalize_target
        )
        stats = _running_statistics(batch_stats, changed, spectrogram)
        return loss, Outputs(None, stats)

    return objective


def mask_noise(encoder: ModelConfig, spectrogram: jax.Array, key: jax.Array) -> jax.Array:
    """Returns random numbers [b, n], one per patch of [b, f, t]; the largest are masked."""
    columns = min(spectrogram.shape[-1] // PATCH_SIZE, encoder.time_positions)
    return jax.random.uniform(key, (spectrogram.shape[0], encoder.freq_patches * columns))


def _normalize_batch(
    model: AudioTransformer, variables: Variables, spectrogram: jax.Array
) -> tuple[jax.Array, Any]:
    """Normalises log-mel by the statistics of the batch; returns the new running ones too."""
    normalized, changed = model.apply(
        variables, spectrogram, train=True, method="normalize", mutable=["batch_stats"]
    )
    return normalized, _running_statistics(variables["batch_stats"], changed, spectrogram)


def _running_statistics(before: Any, changed: Any, spectrogram: jax.Array) -> Any:
    """Returns PyTorch's running statistics, given those of Flax before and after the batch.

    Flax adds the biased variance of a batch of n values, PyTorch the unbiased one, which is larger
    by a factor of n / (n - 1).
    """
    if not before:
        return {}
    # A float: the batch of a pod may have more values than a 32-bit integer can count.
    count = float(spectrogram.shape[0] * spectrogram.shape[2])

    def unbiased(path: Any, old: jax.Array, new: jax.Array) -> jax.Array:
        if path[-1].key != "var":
            return new
        return new + (new - INPUT_NORM_MOMENTUM * old) / (count - 1)

    return jax.tree_util.tree_map_with_path(unbiased, before, changed["batch_stats"])
