"""Which pseudo strong labels go with a training window."""

from collections.abc import Sequence

import numpy as np

from data_pipeline.psl.table import PslTable
from sat_jax.errors import SatError

_SAME_TIME = 0.01
"""Seconds by which one window may end before the next begins."""


class PslWindows:
    """The windows of a table that training may start at."""

    def __init__(self, table: PslTable, *, window_seconds: float, chunks: int = 1) -> None:
        """Finds them.

        Args:
          table: pseudo strong labels of n clips.
          window_seconds: length of a training window.
          chunks: labels a training window needs, one after the other: the labels' windows must be
            this part of it. A shorter one is good where its clip ends with it.

        Raises:
          SatError: no clip has such windows.
        """
        self.table = table
        wanted = window_seconds / chunks
        length = table.end - table.start
        is_whole = np.abs(length - wanted) <= _SAME_TIME
        fits = is_whole | ((length < wanted) & _is_rest(table, is_whole))
        chain = np.flatnonzero(fits)[:, None]
        for _ in range(chunks - 1):
            following = _following(table)[chain[:, -1]]
            keep = (following >= 0) & fits[following]
            chain = np.concatenate([chain, following[:, None]], axis=1)[keep]
        if not len(chain):
            hop = f" --hop {wanted:g}" if chunks > 1 else ""
            raise SatError(
                f"none of the {len(table.start)} pseudo strong labels is for {chunks} x {wanted:g} "
                f"s, one after the other: make them with --window {wanted:g}{hop}"
            )
        self._chain = chain
        self.clips, first = np.unique(_clip_of_row(table)[chain[:, 0]], return_index=True)
        self._first = np.append(first, len(chain))

    clips: np.ndarray
    """int64 [m], the clips that have such windows, ascending."""

    def choose(
        self, clip: np.ndarray, place: np.ndarray, num_classes: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Picks a window of each clip.

        Args:
          clip: int64 [b], of `clips`.
          place: float32 [b] in [0, 1), which of its windows: 0 the first, towards 1 the last.
          num_classes: the model's.

        Returns:
          Where the windows start, float32 [b] seconds, and targets float32 [b, y], or [b, k, y]
          for several chunks.
        """
        at = np.searchsorted(self.clips, clip)
        first, count = self._first[at], self._first[at + 1] - self._first[at]
        rows = self._chain[first + np.floor(place.astype(np.float64) * count).astype(np.int64)]
        targets = self.table.targets(rows.ravel(), num_classes)
        shape: Sequence[int] = (len(clip), rows.shape[1], num_classes)
        by_chunk = targets.reshape(shape)
        start = self.table.start[rows[:, 0]]
        return start, by_chunk[:, 0] if rows.shape[1] == 1 else by_chunk


def _clip_of_row(table: PslTable) -> np.ndarray:
    return np.repeat(np.arange(len(table.window_starts) - 1), np.diff(table.window_starts))


def _is_rest(table: PslTable, is_whole: np.ndarray) -> np.ndarray:
    """Which rows, if they are short, are what is left of their clip or all of it: bool [w].

    Where no row is whole but clips have several, the labels were made for shorter windows.
    """
    clip = _clip_of_row(table)
    clip_end, has_whole = (np.zeros(len(table.window_starts) - 1, kind) for kind in (float, bool))
    np.maximum.at(clip_end, clip, table.end)
    np.logical_or.at(has_whole, clip, is_whole)
    is_first = table.start <= _SAME_TIME
    made_for_these = is_whole.any() or is_first.all()
    is_last = table.end >= clip_end[clip] - _SAME_TIME
    return is_last & (has_whole[clip] | is_first) & made_for_these


def _following(table: PslTable) -> np.ndarray:
    """For each row the row of the same clip that begins where it ends, else -1: int64 [w]."""
    clip_of_row = _clip_of_row(table)
    # One number that sorts by clip, then by time: clips are far shorter than this many seconds.
    day = 1e6
    starts = clip_of_row * day + table.start
    ends = clip_of_row * day + table.end
    row = np.searchsorted(starts, ends - _SAME_TIME)
    row[row == len(starts)] = 0
    return np.where(np.abs(starts[row] - ends) <= _SAME_TIME, row, -1)
