"""A spectrogram small enough to draw, however long the recording."""

import numpy as np


def group_max(values: np.ndarray, size: int) -> np.ndarray:
    """The largest of every `size` neighbours along the last axis; a last group may be smaller.

    Args:
      values: [..., t], t at least 1.
      size: neighbours in a group, at least 1.

    Returns:
      [..., ceil(t / size)] of the same type.
    """
    return np.maximum.reduceat(values, np.arange(0, values.shape[-1], size), axis=-1)


class SpectrogramPool:
    """Gathers the frames of a recording in at most `max_columns` columns.

    A column is the maximum over its frames, so that a click in an hour of quiet stays visible. The
    recording's length need not be known: when the columns run out, neighbours are merged and each
    stands for twice as many frames.

    Attributes:
      hop_seconds: time between the centres of two frames, seconds.
      frames_per_column: how many frames a column stands for, a power of two.
    """

    def __init__(self, hop_seconds: float, *, max_columns: int = 2000) -> None:
        """Starts without frames.

        Args:
          hop_seconds: time between the centres of two frames, seconds.
          max_columns: how many columns are kept at most, an even number.
        """
        self.hop_seconds = hop_seconds
        self.frames_per_column = 1
        self._max_columns = max_columns
        self._num_frames = 0
        self._buffer = np.zeros((0, max_columns), np.float32)

    def add(self, log_mel: np.ndarray) -> None:
        """Appends frames.

        Args:
          log_mel: [f, t] dB, the recording's next frames; t may be any number, 0 too.
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
        """All frames so far as columns [f, columns] dB; no column when there are no frames."""
        return self._buffer[:, : -(-self._num_frames // self.frames_per_column)]

    def _merge_neighbours(self) -> None:
        merged = group_max(self._buffer, 2)
        self._buffer[:, : merged.shape[1]] = merged
        self._buffer[:, merged.shape[1] :] = -np.inf
        self.frames_per_column *= 2
