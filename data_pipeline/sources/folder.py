"""Labelled recordings in a folder as a source of clips."""

from collections.abc import Sequence

import numpy as np

from data_pipeline.sources.bounds import SAMPLE_RATE, window_bounds
from data_pipeline.sources.clips import Clip
from data_pipeline.sources.read_part import read_part
from data_pipeline.sources.source import ClipTable, make_table
from sat_jax.audio import duration_seconds


class FolderSource:
    """Clips that are files, or parts of files, of any format, rate and channel count."""

    def __init__(self, clips: Sequence[Clip], *, leave_out_missing: bool = False) -> None:
        """Makes a source.

        Args:
          clips: from `data_pipeline.sources.clips.read_clips`.
          leave_out_missing: whether clips whose file is missing are left out; else that is found
            out when they are read.
        """
        found = [clip for clip in clips if not leave_out_missing or clip.path.is_file()]
        self.num_missing = len(clips) - len(found)
        self._clips = clips = found
        self._table = make_table([clip.id for clip in clips], [clip.labels for clip in clips])

    @property
    def clips(self) -> ClipTable:
        """Names and labels of all clips, in the given order."""
        return self._table

    def path_of(self, index: int) -> str:
        """The file that a clip is, or is a part of."""
        return str(self._clips[index].path)

    def read(
        self,
        index: int,
        *,
        num_samples: int | None = None,
        place: float = 0.0,
        start: float | None = None,
    ) -> np.ndarray:
        """Reads a window of a clip, see `data_pipeline.sources.source.Source.read`."""
        clip = self._clips[index]

        def bounds(length: int) -> tuple[int, int]:
            name = str(clip.path)
            return window_bounds(
                length, num_samples=num_samples, place=place, start=start, name=name
            )

        length = None if num_samples is None else _promised_length(clip)
        if length is not None:
            first, last = bounds(length)
            window = _read_samples(clip, first, last)
            if len(window) == last - first:
                return window
        # The length is not known, or the header promises a little more than there is.
        whole = _read_samples(clip, 0, None)
        first, last = bounds(len(whole))
        return whole[first:last]


def _promised_length(clip: Clip) -> int | None:
    """Samples of the clip as the file's header has it, or None."""
    seconds = duration_seconds(clip.path)
    if seconds is None:
        return None
    end = seconds if clip.end is None else min(clip.end, seconds)
    return max(0, round(end * SAMPLE_RATE) - round(clip.start * SAMPLE_RATE))


def _read_samples(clip: Clip, first: int, last: int | None) -> np.ndarray:
    """Samples `first` to `last` (None: all) of the clip, fewer where the file ends earlier."""
    offset = round(clip.start * SAMPLE_RATE)
    if last is not None:
        return read_part(clip.path, offset + first, offset + last)
    end = None if clip.end is None else round(clip.end * SAMPLE_RATE)
    return read_part(clip.path, offset + first, end)
