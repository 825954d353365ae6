"""The teacher mn04: a MobileNetV3 that learned AudioSet's 527 classes at 32 kHz.

Weights: mn04_as of github.com/fschmid56/EfficientAT (MIT licence), with 1 M parameters and an mAP
of 0.432 on AudioSet. Source: Schmid et al., "Efficient large-scale audio tagging via
transformer-to-CNN knowledge distillation", 2023.
"""

from collections.abc import Iterable, Iterator
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import soxr

from data_pipeline.psl.mel_bands import mel_weights
from data_pipeline.psl.mobilenet import Network, logits, read_network
from data_pipeline.psl.state_dict import read_state_dict
from data_pipeline.sources.source import SAMPLE_RATE
from sat_jax.models.frontend import frames
from sat_jax.runtime.jax_modes import standard_modes
from sat_jax.weights.pinned_file import PinnedFile, fetch_pinned

Key = TypeVar("Key")

WEIGHTS = PinnedFile(
    "https://github.com/fschmid56/EfficientAT/releases/download/v0.0.1/mn04_as_mAP_432.pt",
    4_066_513,
    "899a8c6217063f6941793102a2780b3dd788ab11fce468d9cf5f0577c453321c",
)

RATE = 32_000
"""Sample rate of the network, Hz."""

WINDOW, HOP, FFT_LENGTH = 800, 320, 1024
"""In samples at `RATE`."""

NUM_BANDS, HIGHEST_HZ = 128, 15_000.0
_PRE_EMPHASIS = 0.97
_LOG_OFFSET = 1e-5

_SHORTEST = SAMPLE_RATE
"""Silence follows windows of fewer samples."""

_WIDTH_STEP = 50
"""Least step between the widths of compiled programs, in frames."""


class Mn04Scorer:
    """Scores windows with mn04."""

    def __init__(self, network: Network) -> None:
        """Makes a scorer; see `load_network`."""
        self._network = network

    def score(self, windows: Iterable[tuple[Key, np.ndarray]]) -> Iterator[tuple[Key, np.ndarray]]:
        """Scores windows.

        Args:
          windows: pairs of any key and samples, float32 [s] in [-1, 1] at 16 kHz.

        Yields:
          Each key with probabilities float32 [527].
        """
        for key, samples in windows:
            with standard_modes():
                probs = np.asarray(_probs(self._network, *padded_sound(samples)))
            yield key, probs


def load_network() -> Network:
    """Loads the weights from the cache, downloaded unless they are there.

    Raises:
      SatError: the download failed, or the file has other content.
    """
    return read_network(read_state_dict(fetch_pinned(WEIGHTS)))


def padded_sound(samples: np.ndarray) -> tuple[np.ndarray, int]:
    """Resamples, emphasises and pads a window.

    Args:
      samples: float32 [s] at 16 kHz.

    Returns:
      float32 samples at `RATE`, and the number of frames that count.
    """
    missing = max(0, _SHORTEST - len(samples))
    sound = soxr.resample(np.pad(samples, (0, missing)), SAMPLE_RATE, RATE)
    emphasised = sound[1:] - np.float32(_PRE_EMPHASIS) * sound[:-1]
    num_frames = 1 + len(emphasised) // HOP
    mirrored = np.pad(emphasised, WINDOW // 2, mode="reflect")
    padded = np.zeros((_width(num_frames) - 1) * HOP + WINDOW, np.float32)
    kept = min(len(mirrored), len(padded))
    padded[:kept] = mirrored[:kept]
    return padded, num_frames


def _width(num_frames: int) -> int:
    """Rounds up to few widths, because each needs a program: about four from n to 2 n frames."""
    step = max(_WIDTH_STEP, 1 << (num_frames.bit_length() - 3))
    return -(-num_frames // step) * step


def log_mel(sound: jax.Array) -> jax.Array:
    """Returns the spectrogram of whole frames: float32 [s] at `RATE` -> [f, t]."""
    position = np.arange(WINDOW) / (WINDOW - 1)
    hann = (0.5 - 0.5 * np.cos(2.0 * np.pi * position)).astype(np.float32)
    spectrum = jnp.fft.rfft(frames(sound[None], WINDOW, HOP)[0] * hann, FFT_LENGTH)
    power = jnp.square(spectrum.real) + jnp.square(spectrum.imag)
    weights = mel_weights(
        fft_length=FFT_LENGTH,
        sample_rate=RATE,
        num_bands=NUM_BANDS,
        lowest_hz=0.0,
        highest_hz=HIGHEST_HZ,
    )
    mel = jnp.matmul(power, weights.astype(np.float32), precision="highest")
    return (jnp.log(mel + _LOG_OFFSET).T + 4.5) / 5.0


@jax.jit
def _probs(network: Network, sound: jax.Array, num_frames: jax.Array) -> jax.Array:
    return jax.nn.sigmoid(logits(network, log_mel(sound), num_frames))
