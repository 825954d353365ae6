"""Sound files as blocks of mono samples."""

import contextlib
import os
from collections.abc import Iterator

import numpy as np
import soundfile

from sat_jax.audio.ffmpeg import open_with_ffmpeg
from sat_jax.audio.libsndfile import explain, has_known_length, open_with_libsndfile
from sat_jax.audio.mono import Source, mono_blocks
from sat_jax.errors import SatError

_MAX_BLOCK_SAMPLES = 1 << 22
_MP3_SLACK_SECONDS = 0.1  # encoders disagree by a frame or two on what they count


def read_blocks(
    path: str | os.PathLike[str],
    *,
    sample_rate: int = 16_000,
    channel: int | None = None,
    block_seconds: float = 4.0,
) -> Iterator[np.ndarray]:
    """Reads an audio file of any length, rate and channel count in constant memory.

    libsndfile reads it, or ffmpeg if that is installed and libsndfile does not know the format.
    Integer samples are divided by their full scale (16-bit ones by exactly 32768). A file
    already at `sample_rate` passes unfiltered. The samples do not depend on `block_seconds`.

    What can be read of a cut file, and what stands before the damage in FLAC and Ogg files, comes
    before the error. A cut MP3 file without a frame count (a
    Xing header) looks like a whole one.

    Args:
      path: the file.
      sample_rate: samples per second of the result, Hz.
      channel: the one to keep, counted from 0; None for the mean of all.
      block_seconds: about how much to read at a time, seconds.

    Yields:
      float32 [s], mono at `sample_rate`, of varying length, never empty; in [-1, 1] but where
      a float or lossy file goes beyond.

    Raises:
      SatError: while iterating; the file is missing, empty, not audio, truncated or damaged,
        holds NaN or Inf, has an absurd rate or no channel `channel`.
    """
    name = os.fspath(path)
    with contextlib.ExitStack() as stack:
        try:
            sound, promised = stack.enter_context(open_with_libsndfile(name))
        except soundfile.LibsndfileError as error:
            reason = explain(error)
            sound, promised = stack.enter_context(open_with_ffmpeg(name, reason=reason)), None
        source = Source(name=name, rate=sound.samplerate, channels=sound.channels)
        frames = _frames(sound, source, block_seconds, promised)
        yield from mono_blocks(frames, source, sample_rate=sample_rate, channel=channel)


def duration_seconds(path: str | os.PathLike[str]) -> float | None:
    """How long a file is, for a progress bar; an estimate for some MP3 files.

    Args:
      path: the file.

    Returns:
      Seconds, or None if that cannot be known without decoding the file.
    """
    name = os.fspath(path)
    if not os.path.isfile(name):
        return None
    try:
        with open_with_libsndfile(name) as (sound, _):
            return sound.frames / sound.samplerate if has_known_length(sound) else None
    except (SatError, soundfile.LibsndfileError):
        return None


def _frames(
    sound: soundfile.SoundFile, source: Source, block_seconds: float, promised: int | None
) -> Iterator[np.ndarray]:
    """Reads float32 [s, channels] to the end and checks that the promised frames came."""
    frames_per_block = min(int(block_seconds * source.rate), _MAX_BLOCK_SAMPLES // source.channels)
    position, damage = 0, ""
    while not damage:
        block, damage = _read(sound, max(1, frames_per_block))
        if not len(block):
            break
        position += len(block)
        yield block
    if damage:
        raise SatError(
            f"{source.name}: truncated or damaged after {position / source.rate:.2f} s "
            f"({damage}): get the whole file, or save what is left of it as a new WAV file"
        )
    slack = _MP3_SLACK_SECONDS * source.rate if sound.format == "MP3" else 0
    if promised is not None and position < promised - slack:
        raise SatError(
            f"{source.name}: truncated: {position / source.rate:.2f} of "
            f"{promised / source.rate:.2f} s are there: get the whole file, or save what is left "
            "of it as a new WAV file"
        )


def _read(sound: soundfile.SoundFile, frames: int) -> tuple[np.ndarray, str]:
    """The next float32 [s, channels], and why there are no more if they end in damage."""
    block = np.full((frames, sound.channels), np.nan, np.float32)
    try:
        return sound.read(out=block), ""
    except soundfile.LibsndfileError as error:
        # libsndfile has put there what it could decode, but SoundFile does not tell how much.
        decoded = np.count_nonzero(~np.isnan(block[:, -1]))
        return block[:decoded], error.error_string.rstrip(".")
