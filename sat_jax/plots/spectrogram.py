"""Spectrograms of recordings of any length: collecting frames, and drawing them over time."""

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage

_DYNAMIC_RANGE = 80.0
"""Levels below the loudest point that a spectrogram shows, dB."""

_MEL_TICKS = (125, 250, 500, 1000, 2000, 4000, 8000, 16000)

_SHORT_STEPS = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0)
_TIME_STEPS = (*_SHORT_STEPS, *(60.0 * n for n in (1, 2, 5, 10, 15, 30, 60, 120, 360, 720, 1440)))


def group_max(values: np.ndarray, size: int) -> np.ndarray:
    """Returns the maximum of each group of neighbours along the last axis.

    Args:
      values: [..., t], t at least 1.
      size: values in a group, at least 1; the last group may be smaller.

    Returns:
      [..., ceil(t / size)] of the same type.
    """
    return np.maximum.reduceat(values, np.arange(0, values.shape[-1], size), axis=-1)


class SpectrogramPool:
    """Max-pools the frames of a recording of unknown length into a limited number of columns.

    The maximum keeps a click in an hour of quiet visible. When all columns are used, neighbours are
    merged, and each column covers twice as many frames.

    Attributes:
      hop_seconds: time between the centres of two frames, seconds.
      frames_per_column: frames that a column covers, a power of two.
    """

    def __init__(self, hop_seconds: float, *, max_columns: int = 2000) -> None:
        """Starts without frames.

        Args:
          hop_seconds: time between the centres of two frames, seconds.
          max_columns: the most columns, an even number.
        """
        self.hop_seconds = hop_seconds
        self.frames_per_column = 1
        self._max_columns = max_columns
        self._num_frames = 0
        self._buffer = np.zeros((0, max_columns), np.float32)

    def add(self, log_mel: np.ndarray) -> None:
        """Appends frames.

        Args:
          log_mel: [f, t] dB, the recording's next frames; t may be 0.
        """
        num_bands, num_new = log_mel.shape
        if num_new == 0:
            return
        if self._num_frames == 0:
            self._buffer = np.full((num_bands, self._max_columns), -np.inf, np.float32)
        while self._num_frames + num_new > self._max_columns * self.frames_per_column:
            self._merge_neighbours()
        places = (self._num_frames + np.arange(num_new)) // self.frames_per_column
        touched, first = np.unique(places, return_index=True)
        peaks = np.maximum.reduceat(log_mel, first, axis=1)
        self._buffer[:, touched] = np.maximum(self._buffer[:, touched], peaks)
        self._num_frames += num_new

    def columns(self) -> np.ndarray:
        """Returns all frames so far as columns [f, columns] dB."""
        return self._buffer[:, : -(-self._num_frames // self.frames_per_column)]

    def _merge_neighbours(self) -> None:
        merged = group_max(self._buffer, 2)
        self._buffer[:, : merged.shape[1]] = merged
        self._buffer[:, merged.shape[1] :] = -np.inf
        self.frames_per_column *= 2


def draw_spectrogram(
    axes: "Axes", spectrogram: SpectrogramPool, mel_range: tuple[float, float]
) -> "AxesImage":
    """Draws log-mel frames in dB over seconds, with ticks in Hz.

    Args:
      axes: empty axes.
      spectrogram: at least one frame.
      mel_range: lower and upper edge of the (HTK) mel filterbank, Hz.

    Returns:
      The image, for a colour bar.
    """
    columns = spectrogram.columns()
    low, high = (_mel(frequency) for frequency in mel_range)
    column = spectrogram.frames_per_column * spectrogram.hop_seconds
    # The first frame is centred at 0 s.
    left = -0.5 * spectrogram.hop_seconds
    loudest = columns.max()
    image = axes.imshow(
        columns,
        origin="lower",
        aspect="auto",
        cmap="magma",
        vmin=max(loudest - _DYNAMIC_RANGE, columns.min() - 1.0),
        vmax=loudest,
        extent=(left, left + columns.shape[1] * column, low, high),
    )
    ticks = [hertz for hertz in _MEL_TICKS if mel_range[0] < hertz <= mel_range[1]]
    axes.set_yticks([_mel(hertz) for hertz in ticks], [f"{hertz}" for hertz in ticks])
    axes.set_ylabel("Frequency (Hz)")
    axes.tick_params(labelbottom=False)
    return image


def set_time_axis(axes: "Axes", end: float) -> None:
    """Makes the x axis a time axis from 0 to `end` seconds, labelled in s, min:s or h:min."""
    step = next((step for step in _TIME_STEPS if end / step <= 12), end / 12)
    ticks = np.arange(0.0, end + 0.01 * step, step)
    axes.set_xlim(0.0, end)
    if end < 120:
        axes.set_xticks(ticks, [f"{round(tick, 2):g}" for tick in ticks])
        axes.set_xlabel("Time (s)")
    elif end < 3600:
        axes.set_xticks(ticks, [f"{tick // 60:.0f}:{tick % 60:02.0f}" for tick in ticks])
        axes.set_xlabel("Time (min:s)")
    else:
        axes.set_xticks(ticks, [f"{tick // 3600:.0f}:{tick % 3600 // 60:02.0f}" for tick in ticks])
        axes.set_xlabel("Time (h:min)")


def _mel(hertz: float) -> float:
    """Returns the HTK mel scale, on which the filterbank's bands are equally spaced."""
    return 2595.0 * math.log10(1.0 + hertz / 700.0)
