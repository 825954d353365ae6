"""From a sound file to one segment as a 16 kHz mono WAV file."""

import io
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import soundfile

from data_pipeline.download.media import CannotFetch, Media
from data_pipeline.sources.segments import Segment
from sat_jax.audio import read_blocks
from sat_jax.errors import SatError

SAMPLE_RATE = 16_000


def write_clip(media: Media, segment: Segment, part: Path, destination: Path) -> float:
    """Cuts a segment out, exact to the sample.

    A recording that ends within the segment gives a shorter clip.

    Args:
      media: the sound; no more of it is decoded than lies before the segment's end.
      segment: what to cut out.
      part: a file on the same disk to write to first.
      destination: the name that only the finished file gets.

    Returns:
      Seconds written.

    Raises:
      CannotFetch: the sound is damaged, breaks off, or ends before the segment begins.
      OSError: the file can't be written.
    """
    first, last = (round(time * SAMPLE_RATE) for time in (segment.start, segment.end))
    offset = media.start * SAMPLE_RATE
    pieces = list(_cut(_sound(media), first - offset, last - offset))
    _check_arrived(media, segment, first + sum(map(len, pieces)))
    if not pieces:
        raise CannotFetch(f"the sound ends before {segment.start:g} s", lasting=True)
    clip = _to_int16(np.concatenate(pieces))
    # libsndfile would not say that the disk is full.
    wav = io.BytesIO()
    soundfile.write(wav, clip, SAMPLE_RATE, "PCM_16", format="WAV")
    with part.open("wb") as file:
        file.write(wav.getbuffer())
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, destination)
    return len(clip) / SAMPLE_RATE


def _check_arrived(media: Media, segment: Segment, last: int) -> None:
    """Refuses a clip that ends early though its video does not."""
    seconds = last / SAMPLE_RATE
    # Sites round lengths; 2 s is more than that.
    if media.video_seconds and seconds < min(segment.end, media.video_seconds - 2) - 1e-3:
        raise CannotFetch(
            f"the sound breaks off at {seconds:g} s of {media.video_seconds:g}", lasting=False
        )


def _sound(media: Media) -> Iterator[np.ndarray]:
    try:
        yield from read_blocks(media.path, sample_rate=SAMPLE_RATE)
    except SatError as error:
        # The file is gone when somebody reads this, and with it what could be done about it.
        reason = str(error).removeprefix(f"{media.path}: ").partition(": get the whole file")[0]
        raise CannotFetch(reason, lasting=False) from error


def _cut(blocks: Iterable[np.ndarray], first: int, last: int) -> Iterator[np.ndarray]:
    """Samples first to last of joined blocks, or as many of them as there are."""
    position = 0
    for block in blocks:
        piece = block[max(0, first - position) : last - position]
        position += len(block)
        if len(piece):
            yield piece
        if position >= last:
            return


def _to_int16(sound: np.ndarray) -> np.ndarray:
    # soundfile's own conversion rounds down.
    return np.clip(np.rint(sound * 32_768.0), -32_768, 32_767).astype(np.int16)
