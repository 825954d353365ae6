"""Clips in sound files of any format, rate and channel count."""

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import soundfile

from data_pipeline.sources.clips import Clip
from data_pipeline.sources.source import (
    SAMPLE_RATE,
    ClipTable,
    make_table,
    warn_of_first,
    window_bounds,
)
from sat_jax.audio import read_blocks
from sat_jax.audio.files import open_whole
from sat_jax.audio.mono import SoundInfo, mono_blocks
from sat_jax.audio.parts import Part

# libsndfile seeks to the exact sample in these. After a seek in Opus or MP3 the samples differ from
# those of an uninterrupted read.
_EXACT_FORMATS = ("WAV", "WAVEX", "RF64", "W64", "AIFF", "AU", "CAF", "FLAC")
_EXACT_SUBTYPES = ("PCM_", "FLOAT", "DOUBLE", "ULAW", "ALAW")
_BLOCK_SECONDS = 1.0
_MAX_SECONDS = 1e9


class FolderSource:
    """Clips that are sound files, or parts of sound files.

    Attributes:
      clips: names and labels, in the given order.
      num_missing: clips that were left out because their file is missing.
    """

    def __init__(self, clips: Sequence[Clip], *, leave_out_missing: bool = False) -> None:
        """Makes a source.

        Args:
          clips: from `data_pipeline.sources.clips.read_clips`.
          leave_out_missing: leaves out clips whose file is missing; otherwise reading them fails.
        """
        self._clips = [clip for clip in clips if not leave_out_missing or os.path.isfile(clip.path)]
        self.num_missing = len(clips) - len(self._clips)
        self.clips: ClipTable = make_table(
            [clip.id for clip in self._clips], [clip.labels for clip in self._clips]
        )

    def path_of(self, index: int) -> str:
        """Returns the sound file of a clip."""
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

        with open_whole(clip.path) as opened:
            length = None
            if num_samples is not None:
                length = _known_length(clip, opened, any_will_do=start is not None)
            if length is not None:
                first, last = bounds(length)
                window = _read_clip(clip, first, last, opened)
                if len(window) == last - first:
                    return window
            # Only decoding tells how long the clip is.
            whole = _read_clip(clip, 0, None, opened)
        first, last = bounds(len(whole))
        return whole[first:last]


def _known_length(clip: Clip, opened: Part | None, *, any_will_do: bool) -> int | None:
    """Returns the samples in a clip if they are known without decoding the file.

    Args:
      clip: the clip.
      opened: its file.
      any_will_do: returns a length beyond the clip's instead of None.
    """
    frames = opened.frames() if opened else None
    if opened and frames is not None:
        seconds = frames / opened.sound.samplerate
    elif any_will_do:
        seconds = _MAX_SECONDS
    else:
        return None
    end = seconds if clip.end is None else min(clip.end, seconds)
    return max(0, round(end * SAMPLE_RATE) - round(clip.start * SAMPLE_RATE))


def _read_clip(clip: Clip, first: int, last: int | None, opened: Part | None) -> np.ndarray:
    """Reads samples `first` to `last` (None: the end) of a clip; fewer if the file ends earlier."""
    offset = round(clip.start * SAMPLE_RATE)
    if last is not None:
        return read_part(clip.path, offset + first, offset + last, opened)
    end = None if clip.end is None else round(clip.end * SAMPLE_RATE)
    return read_part(clip.path, offset + first, end, opened)


def read_part(path: Path, begin: int, end: int | None, opened: Part | None) -> np.ndarray:
    """Reads samples `begin` to `end` of a file as mono at 16 kHz.

    A file at another rate is resampled; its samples then differ from those of the whole file by
    rounding (about 1e-6).

    Args:
      path: the file.
      begin: first sample, at 16 kHz.
      end: one past the last; None is the file's end.
      opened: the file, from `open_whole`; None decodes it from the beginning.

    Returns:
      float32 [s]: fewer samples, perhaps none, if the file ends earlier.

    Raises:
      SatError: the file can't be read.
    """
    part = _seek_and_read(opened, path, begin, end) if opened else None
    if part is None:
        blocks = read_blocks(path, block_seconds=_BLOCK_SECONDS, warn=warn_of_first)
        part = _cut(blocks, 0, begin, end)
    return part


def _seek_and_read(opened: Part, path: Path, begin: int, end: int | None) -> np.ndarray | None:
    """Reads a part after a seek; None if that would give other samples than the whole file."""
    sound = opened.sound
    # A whole second is a whole number of samples at any rate, and a resampler looks back far less.
    second = max(0, begin // SAMPLE_RATE - 1)
    first = second * sound.samplerate
    is_exact = sound.format in _EXACT_FORMATS and sound.subtype.startswith(_EXACT_SUBTYPES)
    if not second or not is_exact or first >= sound.frames:
        return None
    info = SoundInfo(name=str(path), rate=sound.samplerate, channels=sound.channels)
    blocks = mono_blocks(
        _raw_blocks(sound), info, sample_rate=SAMPLE_RATE, channel=None, warn=warn_of_first
    )
    try:
        sound.seek(first)
        part = _cut(blocks, second * SAMPLE_RATE, begin, end)
    except soundfile.LibsndfileError:
        return None  # read_blocks reports the error.
    # Other sounds may follow the first one of a file.
    is_all = len(part) == end - begin if end is not None else opened.frames() is not None
    return part if is_all else None


def _raw_blocks(sound: soundfile.SoundFile) -> Iterator[np.ndarray]:
    size = max(1, int(_BLOCK_SECONDS * sound.samplerate))
    while len(block := sound.read(size, dtype="float32", always_2d=True)):
        yield block


def _cut(blocks: Iterable[np.ndarray], position: int, begin: int, end: int | None) -> np.ndarray:
    """Returns samples `begin` to `end` of blocks that start at sample `position`."""
    parts = []
    for block in blocks:
        parts.append(block[max(0, begin - position) :])
        position += len(block)
        if end is not None and position >= end:
            break
    part = np.concatenate(parts)
    return part if end is None else part[: end - begin]
