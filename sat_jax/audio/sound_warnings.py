"""Finds sound whose tags would be wrong: of an improbable scale, or with cancelled channels.

Each check warns once per recording, while it is read.
"""

import warnings
from collections.abc import Callable

import numpy as np

Warn = Callable[[str], None]
"""Receives a warning of one line, which begins with the recording's name."""

_LOUD = 10.0  # Mixes and lossy files exceed full scale by a few decibels, not by 20.
_QUIET = 2.0**-15  # 16-bit samples that are not zero are not below it.
_SILENT = 1e-7  # Decoded silence may be a little above zero.
_SPAN_SECONDS = 10.0
_CANCELLED = 0.02  # Share of the power that is left of two channels: 17 dB less.
_AUDIBLE = 1e-9  # Mean square: 90 dB below full scale.
_SCALES = "--full_scale 32768 for 16-bit numbers, 8388608 for 24-bit, 2147483648 for 32-bit"


class SoundWarning(UserWarning):
    """Sound has an improbable scale, or channels that cancel each other."""


def warn_in_python(text: str) -> None:
    """Issues a `SoundWarning`."""
    warnings.warn(text, SoundWarning, stacklevel=2)


class ScaleCheck:
    """Warns of samples that are 20 dB over full scale, and of sound below one 16-bit step."""

    def __init__(self, name: str, warn: Warn) -> None:
        """Starts a recording."""
        self._name = name
        self._warn = warn
        self._peak = 0.0

    def add(self, peak: float) -> None:
        """Takes the largest magnitude of a block."""
        if peak > _LOUD >= self._peak:
            self._warn(
                f"{self._name}: a sample of {peak:.0f} is far beyond full scale, which is 1: use "
                f"{_SCALES}"
            )
        self._peak = max(self._peak, peak)

    def finish(self) -> None:
        """Ends the recording."""
        if _SILENT < self._peak < _QUIET:
            decibels = -20 * np.log10(self._peak)
            self._warn(
                f"{self._name}: its loudest sample is {decibels:.0f} dB below full scale: if "
                "16-bit numbers were divided twice, use --full_scale 3.05e-5"
            )


class PhaseCheck:
    """Warns of two channels that are each other's negative, so that their mean is silent."""

    def __init__(self, name: str, channels: int, rate: int, warn: Warn) -> None:
        """Starts a recording."""
        self._name = name
        self._warn = warn
        self._rate = rate
        self._is_done = False
        self._seconds = 0.0
        self._start_span(channels)

    def _start_span(self, channels: int) -> None:
        self._frames = 0
        self._sums = np.zeros(channels)
        self._products = np.zeros((channels, channels))

    def add(self, block: np.ndarray) -> None:
        """Takes a block [channels, s]."""
        if self._is_done:
            return
        self._sums += block.sum(axis=1)
        self._products += block @ block.T
        self._frames += block.shape[1]
        if self._frames >= _SPAN_SECONDS * self._rate:
            self._check_span()
            self._seconds += self._frames / self._rate
            self._start_span(len(block))

    def finish(self) -> None:
        """Ends the recording; one shorter than a span is checked as a whole."""
        if not self._seconds and self._frames and not self._is_done:
            self._check_span()

    def _check_span(self) -> None:
        means = self._sums / self._frames  # Leaves out a constant offset.
        products = self._products / self._frames - np.outer(means, means)
        power = np.diag(products)
        before = power[:, None] + power
        is_cancelled = before + 2 * products < _CANCELLED * before
        is_cancelled &= before > max(_AUDIBLE, 0.1 * power.sum())
        pairs = np.argwhere(np.triu(is_cancelled, 1))
        if len(pairs):
            first, second = pairs[0]
            where = f" from {self._seconds:.0f} s on" if self._seconds else ""
            self._warn(
                f"{self._name}: channels {first} and {second} cancel each other in the mean"
                f"{where}: use --channel {first}"
            )
            self._is_done = True
