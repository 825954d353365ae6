"""Data augmentation as pure functions of a random key.

It runs on the accelerator inside the training step: the input pipeline stays fast, and a resumed
run repeats it exactly.
"""

import dataclasses

import jax
import jax.numpy as jnp

from sat_jax.errors import SatError


@dataclasses.dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Settings of the augmentation; by default there is none.

    Attributes:
      time_shift: largest shift of a window, seconds, in both directions; the window wraps around.
      gain_db: largest change of a window's level, dB, in both directions.
      flip_polarity: whether the sign of a window is flipped with probability 0.5.
      mixup: both parameters of the Beta distribution of mixup weights; 0 turns mixup off.
      time_masks: number of time masks in each spectrogram.
      time_mask_frames: largest width of a time mask, frames.
      freq_masks: number of frequency masks in each spectrogram.
      freq_mask_bins: largest width of a frequency mask, mel bins.

    Raises:
      SatError: a value is negative.
    """

    time_shift: float = 0.0
    gain_db: float = 0.0
    flip_polarity: bool = False
    mixup: float = 0.0
    time_masks: int = 0
    time_mask_frames: int = 32
    freq_masks: int = 0
    freq_mask_bins: int = 8

    def __post_init__(self) -> None:
        """Checks the values."""
        for field in dataclasses.fields(self):
            if not getattr(self, field.name) >= 0:
                raise SatError(
                    f"augment.{field.name}={getattr(self, field.name)} is negative: give 0 or more"
                )


def change_waveforms(
    key: jax.Array, waveform: jax.Array, config: AugmentConfig, *, sample_rate: int
) -> jax.Array:
    """Shifts, amplifies and flips each window independently.

    Args:
      key: a `jax.random.key`.
      waveform: float32 [b, s].
      config: what to change.
      sample_rate: samples per second.

    Returns:
      float32 [b, s]; the gain may take it beyond [-1, 1].
    """
    batch = waveform.shape[0]
    shift_key, gain_key, sign_key = jax.random.split(key, 3)
    if config.time_shift:
        limit = round(config.time_shift * sample_rate)
        shifts = jax.random.randint(shift_key, (batch,), -limit, limit + 1)
        waveform = jax.vmap(jnp.roll)(waveform, shifts)
    if config.gain_db:
        gain_db = jax.random.uniform(gain_key, (batch, 1), minval=-1.0) * config.gain_db
        waveform = waveform * 10.0 ** (gain_db / 20.0)
    if config.flip_polarity:
        waveform = waveform * jax.random.rademacher(sign_key, (batch, 1), waveform.dtype)
    return waveform


def mixup(
    key: jax.Array, waveform: jax.Array, target: jax.Array, alpha: float
) -> tuple[jax.Array, jax.Array]:
    """Mixes each example with its neighbour in the batch (Zhang et al. 2018, arXiv 1710.09412).

    Args:
      key: a `jax.random.key`.
      waveform: float32 [b, s].
      target: float32 [b, ...].
      alpha: both parameters of the Beta distribution, above 0.

    Returns:
      lam * x + (1 - lam) * neighbour of both, lam in [0.5, 1] drawn for each example.
    """
    lam = jax.random.beta(key, alpha, alpha, (waveform.shape[0],))
    # At least half is the example itself, or two rows of the batch could become the same.
    lam = jnp.maximum(lam, 1.0 - lam)

    def mix(x: jax.Array) -> jax.Array:
        weight = lam.reshape(-1, *[1] * (x.ndim - 1)).astype(x.dtype)
        return weight * x + (1.0 - weight) * jnp.roll(x, 1, axis=0)

    return mix(waveform), mix(target)


def spec_augment(key: jax.Array, log_mel: jax.Array, config: AugmentConfig) -> jax.Array:
    """Masks bands of time and of frequency (Park et al. 2019, arXiv 1904.08779).

    Args:
      key: a `jax.random.key`.
      log_mel: float32 [b, f, t], normalised, so 0 is the mean.
      config: number and largest width of the masks.

    Returns:
      float32 [b, f, t].
    """
    time_key, freq_key = jax.random.split(key)
    batch, bins, frames = log_mel.shape
    times = _random_bands(time_key, batch, config.time_masks, frames, config.time_mask_frames)
    freqs = _random_bands(freq_key, batch, config.freq_masks, bins, config.freq_mask_bins)
    return jnp.where(times[:, None, :] | freqs[:, :, None], 0.0, log_mel)


def _random_bands(key: jax.Array, batch: int, count: int, length: int, widest: int) -> jax.Array:
    """Returns bool [b, length], True in `count` random bands of width 0 to `widest`."""
    width_key, place_key = jax.random.split(key)
    widest = min(widest, length)
    widths = jax.random.randint(width_key, (batch, count, 1), 0, widest + 1)
    places = jax.random.uniform(place_key, (batch, count, 1))
    first = jnp.floor(places * (length - widths + 1)).astype(jnp.int32)
    at = jnp.arange(length)
    return ((at >= first) & (at < first + widths)).any(axis=1)
