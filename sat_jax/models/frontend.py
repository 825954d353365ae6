"""Computes log-mel spectrograms in dB from waveforms, as pure functions.

The values are those of the published system: centred STFT with reflected edges, power, HTK
mel bands without area normalisation, dB with a floor `top_db` under the maximum. Deviation: the
maximum is taken per recording, not over the batch, so that neighbours never change a result.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from sat_jax.config import FrontendConfig

MIN_POWER = 1e-10
"""Least power of a mel band: -100 dB."""


@functools.cache
def mel_filterbank(config: FrontendConfig) -> np.ndarray:
    """Returns triangular HTK mel filters without area normalisation: [n_fft // 2 + 1, n_mels].

    They equal `librosa.filters.mel(..., htk=True, norm=None).T` in float32. Importing librosa would
    delay the first result by seconds.
    """

    def to_mel(hertz: float) -> float:
        return 2595.0 * np.log10(1.0 + hertz / 700.0)

    mels = np.linspace(to_mel(config.f_min), to_mel(config.f_max), config.n_mels + 2)
    edges = 700.0 * (10.0 ** (mels / 2595.0) - 1.0)
    bins = np.linspace(0.0, config.sample_rate / 2.0, config.n_fft // 2 + 1)
    distance = edges[None, :] - bins[:, None]
    rising = -distance[:, :-2] / np.diff(edges)[:-1]
    falling = distance[:, 2:] / np.diff(edges)[1:]
    return np.maximum(0.0, np.minimum(rising, falling)).astype(np.float32)


@functools.cache
def hann_window(n_fft: int) -> np.ndarray:
    """Returns the periodic Hann window, float32 [n_fft]."""
    return (0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(n_fft) / n_fft)).astype(np.float32)


def framed_power_db(samples: jax.Array, config: FrontendConfig) -> jax.Array:
    """Returns the mel power of every whole frame in `samples`, in dB without the `top_db` floor.

    Args:
      samples: float32 [b, s], s >= n_fft, edges already padded.
      config: spectrogram settings.

    Returns:
      float32 [b, f, t] with t = 1 + (s - n_fft) // hop_length, at least -100 dB.
    """
    windows = frames(samples, config.n_fft, config.hop_length)
    spectrum = jnp.fft.rfft(windows * hann_window(config.n_fft))
    power = jnp.square(spectrum.real) + jnp.square(spectrum.imag)
    mel = jnp.matmul(power, mel_filterbank(config), precision="highest")
    return 10.0 * jnp.log10(jnp.maximum(mel, MIN_POWER)).swapaxes(1, 2)


def frames(samples: jax.Array, size: int, hop: int) -> jax.Array:
    """Returns all whole frames, overlapping: [b, s] -> [b, t, size], t = 1 + (s - size) // hop."""
    # Joined from slices of one hop.
    count = 1 + (samples.shape[-1] - size) // hop
    hops_per_frame = -(-size // hop)
    length = (count - 1 + hops_per_frame) * hop
    padded = jnp.pad(samples, ((0, 0), (0, max(0, length - samples.shape[-1]))))[:, :length]
    by_hop = padded.reshape(samples.shape[0], -1, hop)
    shifted = [by_hop[:, i : i + count] for i in range(hops_per_frame)]
    return jnp.concatenate(shifted, axis=-1)[..., :size]


def reflect_edges(samples: jax.Array, begin: jax.Array | int, end: jax.Array | int) -> jax.Array:
    """Overwrites the samples outside [begin, end) by the mirror image of those inside.

    Args:
      samples: float32 [b, s].
      begin: int32 [b] or scalar, index of the first real sample.
      end: int32 [b] or scalar, one past the last real sample.

    Returns:
      float32 [b, s]. Where the mirror image leaves the array, the nearest sample is used.
    """
    begin, end = (jnp.reshape(jnp.asarray(edge), (-1, 1)) for edge in (begin, end))
    index = jnp.arange(samples.shape[-1])[None, :]
    index = jnp.where(index < begin, 2 * begin - index, index)
    index = jnp.where(index >= end, 2 * (end - 1) - index, index)
    index = jnp.broadcast_to(index, samples.shape)
    return jnp.take_along_axis(samples, index, axis=-1, mode="clip")


def floor_top_db(power_db: jax.Array, peak_db: jax.Array, config: FrontendConfig) -> jax.Array:
    """Raises values to the floor, `top_db` under the peak.

    Args:
      power_db: float32 [b, f, t].
      peak_db: float32 [b], the loudest value of each recording.
      config: spectrogram settings.
    """
    return jnp.maximum(power_db, (peak_db - config.top_db)[:, None, None])


def log_mel(
    waveform: jax.Array, config: FrontendConfig, *, num_samples: jax.Array | int | None = None
) -> jax.Array:
    """Returns the log-mel spectrogram of whole recordings.

    Args:
      waveform: float32 [b, s] in [-1, 1]; s > n_fft // 2, as reflection needs.
      config: spectrogram settings.
      num_samples: int32 [b] or scalar, samples of each recording; later ones are ignored. None
        means that all have s.

    Returns:
      float32 dB [b, f, t], t = 1 + s // hop_length. Frames from 1 + num_samples // hop_length on
      are undefined.
    """
    half = config.n_fft // 2
    if num_samples is None:
        padded = jnp.pad(waveform, ((0, 0), (half, half)), mode="reflect")
        power_db = framed_power_db(padded, config)
        return floor_top_db(power_db, power_db.max((1, 2)), config)
    padded = jnp.pad(waveform, ((0, 0), (half, half)))
    padded = reflect_edges(padded, half, half + num_samples)
    power_db = framed_power_db(padded, config)
    return floor_top_db(power_db, peak_of(power_db, config.num_frames(num_samples)), config)


def peak_of(power_db: jax.Array, num_frames: jax.Array | int) -> jax.Array:
    """Returns the loudest value of the first `num_frames` frames: [b, f, t] -> [b]."""
    real = jnp.arange(power_db.shape[-1])[None, :] < jnp.reshape(jnp.asarray(num_frames), (-1, 1))
    return jnp.where(real[:, None, :], power_db, -jnp.inf).max((1, 2))
