"""Training windows that pseudo strong labels cover."""

from collections.abc import Sequence

import numpy as np

from data_pipeline.psl.table import PslTable
from sat_jax.errors import SatError

_SAME_TIME = 0.01
"""Tolerance in seconds when times are compared."""


class PslWindows:
    """The windows of a table that can be training windows.

    Attributes:
      table: all pseudo strong labels.
      clips: int64 [m], the clips with such windows, ascending.
    """

    def __init__(self, table: PslTable, *, window_seconds: float, chunks: int = 1) -> None:
        """Finds them.

        Args:
          table: pseudo strong labels of n clips.
          window_seconds: length of a training window.
          chunks: targets per training window. The labels' windows must follow each other and be
            window_seconds / chunks long; the last one of a clip may be shorter.

        Raises:
          SatError: no clip has such windows.
        """
        self.table = table
        length = window_seconds / chunks
        lengths = table.end - table.start
        is_whole = np.abs(lengths - length) <= _SAME_TIME
        fits = is_whole | ((lengths < length) & _may_be_short(table, is_whole))
        # Rows of the chunks of each training window, [training windows, chunks].
        rows = np.flatnonzero(fits)[:, None]
        for _ in range(chunks - 1):
            following = _next_rows(table)[rows[:, -1]]
            keep = (following >= 0) & fits[following]
            rows = np.concatenate([rows, following[:, None]], axis=1)[keep]
        if not len(rows):
            hop = f" --hop {length:g}" if chunks > 1 else ""
            raise SatError(
                f"none of the {len(table.start)} pseudo strong labels fits {chunks} x {length:g} s "
                f"back to back: make them with --window {length:g}{hop}"
            )
        self._rows = rows
        self.clips, first = np.unique(_clip_of_row(table)[rows[:, 0]], return_index=True)
        self._first = np.append(first, len(rows))

    def choose(
        self, clip: np.ndarray, place: np.ndarray, num_classes: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Chooses a training window of each clip.

        Args:
          clip: int64 [b], from `clips`.
          place: float32 [b] in [0, 1), from the first (0) to the last window of the clip.
          num_classes: number of the model's classes.

        Returns:
          Starts of the windows, float32 [b] seconds, and targets float32 [b, y], or [b, k, y] if
          chunks > 1.
        """
        at = np.searchsorted(self.clips, clip)
        first, count = self._first[at], self._first[at + 1] - self._first[at]
        rows = self._rows[first + np.floor(place.astype(np.float64) * count).astype(np.int64)]
        targets = self.table.targets(rows.ravel(), num_classes)
        shape: Sequence[int] = (len(clip), rows.shape[1], num_classes)
        by_chunk = targets.reshape(shape)
        start = self.table.start[rows[:, 0]]
        return start, by_chunk[:, 0] if rows.shape[1] == 1 else by_chunk


def _clip_of_row(table: PslTable) -> np.ndarray:
    return np.repeat(np.arange(len(table.window_starts) - 1), np.diff(table.window_starts))


def _may_be_short(table: PslTable, is_whole: np.ndarray) -> np.ndarray:
    """Returns bool [w]: whether a row may be short because its clip ends with it.

    If no row is whole but clips have several rows, the labels were made for shorter windows.
    """
    clip = _clip_of_row(table)
    clip_end, has_whole = (np.zeros(len(table.window_starts) - 1, kind) for kind in (float, bool))
    np.maximum.at(clip_end, clip, table.end)
    np.logical_or.at(has_whole, clip, is_whole)
    is_first = table.start <= _SAME_TIME
    made_for_these = is_whole.any() or is_first.all()
    is_last = table.end >= clip_end[clip] - _SAME_TIME
    return is_last & (has_whole[clip] | is_first) & made_for_these


def _next_rows(table: PslTable) -> np.ndarray:
    """Returns int64 [w]: the row of the same clip that starts where each row ends, or -1."""
    clip_of_row = _clip_of_row(table)
    # One number orders by clip, then by time: clips are far shorter than this many seconds.
    clip_seconds = 1e6
    starts = clip_of_row * clip_seconds + table.start
    ends = clip_of_row * clip_seconds + table.end
    row = np.searchsorted(starts, ends - _SAME_TIME)
    row[row == len(starts)] = 0
    return np.where(np.abs(starts[row] - ends) <= _SAME_TIME, row, -1)
