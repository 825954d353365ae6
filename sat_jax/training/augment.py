"""Random changes of training examples, as pure functions of a key.

They run on the accelerator inside the training step, so they cost the input pipeline nothing, and
a run that is taken up again repeats them exactly.
"""

import dataclasses

import jax
import jax.numpy as jnp

from sat_jax.errors import SatError


@dataclasses.dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """What is changed, and how far; the defaults change nothing.

    Attributes:
      time_shift: a window is rotated by up to this many seconds, either way.
      gain_db: a window's level changes by up to this many dB, either way.
      flip_polarity: half of the windows change their sign.
      mixup: both parameters of the Beta distribution that mixing weights come from; 0 is off.
      time_masks: stretches of time that are hidden in each spectrogram.
      time_mask_frames: longest such stretch, frames.
      freq_masks: ranges of frequency that are hidden in each spectrogram.
      freq_mask_bins: widest such range, mel bands.

    Raises:
      SatError: a value is under 0.
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
        """Refuses values out of range."""
        for field in dataclasses.fields(self):
            if not getattr(self, field.name) >= 0:
                raise SatError(f"augment.{field.name}={getattr(self, field.name)} is under 0")


def change_waveforms(
    key: jax.Array, waveform: jax.Array, config: AugmentConfig, *, sample_rate: int
) -> jax.Array:
    """Shifts, amplifies and flips each window on its own.

    Args:
      key: a `jax.random.key`.
      waveform: float32 [b, s].
      config: how far.
      sample_rate: samples per second.

    Returns:
      float32 [b, s]; beyond [-1, 1] where the gain is.
    """
    batch = waveform.shape[0]
    shift_key, gain_key, sign_key = jax.random.split(key, 3)
    if config.time_shift:
        most = round(config.time_shift * sample_rate)
        shifts = jax.random.randint(shift_key, (batch,), -most, most + 1)
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
    # The larger share is the example's own, or two rows of the batch might become the same.
    lam = jnp.maximum(lam, 1.0 - lam)

    def mix(x: jax.Array) -> jax.Array:
        share = lam.reshape(-1, *[1] * (x.ndim - 1)).astype(x.dtype)
        return share * x + (1.0 - share) * jnp.roll(x, 1, axis=0)

    return mix(waveform), mix(target)


def spec_augment(key: jax.Array, log_mel: jax.Array, config: AugmentConfig) -> jax.Array:
    """Hides stretches of time and ranges of frequency (Park et al. 2019, arXiv 1904.08779).

    Args:
      key: a `jax.random.key`.
      log_mel: float32 [b, f, t], normalised, so that 0 is the mean and tells nothing.
      config: how many, and how large at most.

    Returns:
      float32 [b, f, t].
    """
    time_key, freq_key = jax.random.split(key)
    batch, bins, frames = log_mel.shape
    times = _bands(time_key, batch, config.time_masks, frames, config.time_mask_frames)
    freqs = _bands(freq_key, batch, config.freq_masks, bins, config.freq_mask_bins)
    return jnp.where(times[:, None, :] | freqs[:, :, None], 0.0, log_mel)


def _bands(key: jax.Array, batch: int, count: int, length: int, widest: int) -> jax.Array:
    """Bool [b, length], True inside `count` random bands of 0 to `widest` places."""
    width_key, place_key = jax.random.split(key)
    widest = min(widest, length)
    widths = jax.random.randint(width_key, (batch, count, 1), 0, widest + 1)
    places = jax.random.uniform(place_key, (batch, count, 1))
    first = jnp.floor(places * (length - widths + 1)).astype(jnp.int32)
    at = jnp.arange(length)
    return ((at >= first) & (at < first + widths)).any(axis=1)
