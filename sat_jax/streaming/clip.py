"""Clip mode: one spectrogram of a whole recording, its pieces scored from an empty cache."""

import jax

from sat_jax.models.cache import init_cache
from sat_jax.models.frontend import log_mel
from sat_jax.models.transformer import AudioTransformer
from sat_jax.streaming.pieces import PiecePlan, Variables, normalize, run_pieces, zero_past_end


def score_clips(
    model: AudioTransformer,
    variables: Variables,
    waveform: jax.Array,
    num_samples: jax.Array | None = None,
    *,
    plan: PiecePlan | None = None,
) -> jax.Array:
    """Scores the pieces of a batch of clips.

    Args:
      model: the network.
      variables: its weights.
      waveform: float32 [b, s] in [-1, 1] at the config's sample rate, s at least one patch.
      num_samples: int32 [b], samples of each clip, zero-padded to s; None if all have s.
      plan: the pieces of every clip; None is `plan_pieces` of all frames.

    Returns:
      The model's outputs float32 [k, b, y]. Where a piece reaches past the end of its clip, the
      normalised spectrogram is zero.
    """
    config = model.config
    spectrogram = log_mel(waveform, config.frontend, num_samples=num_samples)
    normalized = normalize(model, variables, spectrogram)
    if num_samples is not None:
        normalized = zero_past_end(normalized, config.frontend.num_frames(num_samples))
    cache = init_cache(config, waveform.shape[0], "kv")
    return run_pieces(model, variables, normalized, cache, plan=plan)[0]
