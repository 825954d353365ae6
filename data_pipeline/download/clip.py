"""Writes a segment of a sound file as a 16 kHz mono WAV file."""

import io
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import soundfile

from data_pipeline.download.media import FetchError, Media
from data_pipeline.sources.segments import Segment
from data_pipeline.sources.source import SAMPLE_RATE, warn_of_first
from sat_jax.audio import read_blocks
from sat_jax.audio.files import ADVICE
from sat_jax.errors import SatError


def write_clip(media: Media, segment: Segment, temporary: Path, output: Path) -> float:
    """Writes a segment, exact to the sample.

    If the recording ends inside the segment, the clip is shorter.

    Args:
      media: the sound; decoded up to the end of the segment.
      segment: the segment to write.
      temporary: a file to write first, on the same disk as `output`.
      output: the path that the finished file gets.

    Returns:
      Length of the clip in seconds.

    Raises:
      FetchError: the sound is damaged or truncated, or ends before the segment.
      OSError: the file can't be written.
    """
    first, end = (round(time * SAMPLE_RATE) for time in (segment.start, segment.end))
    offset = media.start * SAMPLE_RATE
    blocks = list(_cut(_sound(media), first - offset, end - offset))
    _check_complete(media, segment, first + sum(map(len, blocks)))
    if not blocks:
        raise FetchError(f"the sound ends before {segment.start:g} s", permanent=True)
    clip = _to_int16(np.concatenate(blocks))
    # libsndfile would not report a full disk.
    wav = io.BytesIO()
    soundfile.write(wav, clip, SAMPLE_RATE, "PCM_16", format="WAV")
    with temporary.open("wb") as file:
        file.write(wav.getbuffer())
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, output)
    return len(clip) / SAMPLE_RATE


def _check_complete(media: Media, segment: Segment, end: int) -> None:
    """Refuses sound that ends inside the segment although its video goes on."""
    seconds = end / SAMPLE_RATE
    # Sites round a video's length, by less than 2 s.
    if media.video_seconds and seconds < min(segment.end, media.video_seconds - 2) - 1e-3:
        raise FetchError(
            f"the sound breaks off at {seconds:g} s of {media.video_seconds:g}", permanent=False
        )


def _sound(media: Media) -> Iterator[np.ndarray]:
    try:
        yield from read_blocks(media.path, sample_rate=SAMPLE_RATE, warn=warn_of_first)
    except SatError as error:
        # The temporary file is gone when this is read, so its path and the advice are left out.
        reason = str(error).removeprefix(f"{media.path}: ").partition(f": {ADVICE}")[0]
        raise FetchError(reason, permanent=False) from error


def _cut(blocks: Iterable[np.ndarray], first: int, end: int) -> Iterator[np.ndarray]:
    """Yields samples first to end of the joined blocks, as far as there are any."""
    position = 0
    for block in blocks:
        part = block[max(0, first - position) : end - position]
        position += len(block)
        if len(part):
            yield part
        if position >= end:
            return


def _to_int16(sound: np.ndarray) -> np.ndarray:
    # soundfile's own conversion rounds down.
    return np.clip(np.rint(sound * 32_768.0), -32_768, 32_767).astype(np.int16)
