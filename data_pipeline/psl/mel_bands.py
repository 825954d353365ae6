"""Mel bands whose triangles are linear in mels, as in TensorFlow and Kaldi."""

import functools

import numpy as np


@functools.cache
def mel_weights(
    *, fft_length: int, sample_rate: int, num_bands: int, lowest_hz: float, highest_hz: float
) -> np.ndarray:
    """Returns the weight of each frequency in each band, float64 [fft_length // 2 + 1, num_bands].

    The triangles are evenly spaced between `lowest_hz` and `highest_hz` in mels, each as high as 1.
    """
    hertz = np.linspace(0.0, sample_rate / 2, fft_length // 2 + 1)
    edges = np.linspace(_to_mel(lowest_hz), _to_mel(highest_hz), num_bands + 2)
    distance = np.abs(_to_mel(hertz)[:, None] - edges[1:-1])
    return np.maximum(0.0, 1.0 - distance / (edges[1] - edges[0]))


def _to_mel(hertz: float | np.ndarray) -> np.ndarray:
    return 1127.0 * np.log1p(np.asarray(hertz) / 700.0)
