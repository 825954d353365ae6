"""Clip mode: one spectrogram of a whole recording, its pieces scored from an empty cache."""

import jax
import jax.numpy as jnp

from sat_jax.models.cache import Cache, CacheForm, init_cache
from sat_jax.models.frontend import floor_top_db, log_mel
from sat_jax.models.transformer import AudioTransformer
from sat_jax.streaming.pieces import PiecePlan, Variables, apply, normalize, run_pieces


def score_clips(
    model: AudioTransformer,
    variables: Variables,
    waveform: jax.Array,
    num_samples: jax.Array | None = None,
    *,
    plan: PiecePlan | None = None,
    cache_form: CacheForm = "kv",
) -> jax.Array:
    """Scores the pieces of a batch of clips.

    Args:
      model: the network.
      variables: its weights.
      waveform: float32 [b, s] in [-1, 1] at the config's sample rate, s at least one patch.
      num_samples: int32 [b], samples of each clip, zero-padded to s; None if all have s.
      plan: the pieces of every clip; None is `plan_pieces` of all frames.
      cache_form: see `init_cache`; the outputs are the same.

    Returns:
      The model's outputs float32 [k, b, y]. Where a piece reaches behind the end of its clip, the
      normalised spectrogram is zero.
    """
    config = model.config
    spectrogram = log_mel(waveform, config.frontend, num_samples=num_samples)
    normalized = normalize(model, variables, spectrogram)
    if num_samples is not None:
        normalized = _zero_behind(normalized, config.frontend.num_frames(num_samples))
    cache = init_cache(config, waveform.shape[0], cache_form)
    return run_pieces(model, variables, normalized, cache, plan=plan)[0]


def score_piece(
    model: AudioTransformer,
    variables: Variables,
    power_db: jax.Array,
    num_frames: jax.Array,
    peak_db: jax.Array,
    cache: Cache,
) -> tuple[jax.Array, Cache]:
    """Scores one piece of clips whose spectrograms are computed on the way, see `score_clips`.

    Args:
      model: the network.
      variables: its weights.
      power_db: float32 [b, f, t] from `framed_power_db`.
      num_frames: int32 [b], frames of the piece that are not padding.
      peak_db: float32 [b], the loudest value of each clip.
      cache: after the piece before.

    Returns:
      The model's outputs [b, y], and the cache after the piece.
    """
    spectrogram = floor_top_db(power_db, peak_db, model.config.frontend)
    normalized = normalize(model, variables, spectrogram)
    return apply(model, variables, _zero_behind(normalized, num_frames), cache)


def _zero_behind(normalized: jax.Array, num_frames: jax.Array) -> jax.Array:
    """Sets the frames behind the first `num_frames` [b] of [b, f, t] to zero."""
    is_real = jnp.arange(normalized.shape[-1]) < num_frames[:, None]
    return jnp.where(is_real[:, None], normalized, 0.0)
