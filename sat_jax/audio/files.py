"""Reads audio files as blocks of mono samples."""

import contextlib
import os
from collections.abc import Iterator

import numpy as np
import soundfile

from sat_jax.audio.ffmpeg import open_with_ffmpeg
from sat_jax.audio.headers import ADVICE
from sat_jax.audio.libsndfile import describe_error, has_known_length, open_with_libsndfile
from sat_jax.audio.mono import SoundInfo, mono_blocks
from sat_jax.audio.sound_warnings import Warn, warn_in_python
from sat_jax.errors import SatError

_MAX_BLOCK_SAMPLES = 1 << 22
_MP3_TOLERANCE = 0.1  # seconds: encoders disagree by a frame or two on the length


def read_blocks(
    path: str | os.PathLike[str],
    *,
    sample_rate: int = 16_000,
    channel: int | None = None,
    full_scale: float = 1.0,
    block_seconds: float = 4.0,
    warn: Warn = warn_in_python,
) -> Iterator[np.ndarray]:
    """Reads an audio file of any length, rate and channel count in constant memory.

    libsndfile reads it. If libsndfile does not know the format and ffmpeg is installed, ffmpeg
    reads it. Integer samples are divided by their full scale (16-bit samples by 32768). A file with
    the rate `sample_rate` is not filtered. The samples do not depend on `block_seconds`.

    A truncated file, and a damaged FLAC or Ogg file, is read up to the damage; then the error is
    raised. A truncated MP3 file without a frame count (Xing header) looks whole.

    Args:
      path: the file.
      sample_rate: sample rate of the result, Hz.
      channel: the channel to read, counted from 0; None for the mean of all channels.
      full_scale: the number that all samples are divided by, such as 32768 for 16-bit numbers that
        were stored as floats.
      block_seconds: approximate length of a block, seconds.
      warn: receives a line if the scale is improbable, or if channels cancel each other. By default
        it becomes a `sat_jax.audio.sound_warnings.SoundWarning`.

    Yields:
      float32 [s], mono at `sample_rate`, of varying length, never empty. Values are in [-1, 1],
      except where a float or lossy file exceeds that.

    Raises:
      SatError: while iterating; the file is missing, empty, not audio, truncated or damaged,
        holds NaN or Inf, or has no channel `channel` or no usable sample rate.
    """
    name = os.fspath(path)
    with contextlib.ExitStack() as stack:
        try:
            sound, promised = stack.enter_context(open_with_libsndfile(name))
        except soundfile.LibsndfileError as error:
            reason = describe_error(error)
            sound, promised = stack.enter_context(open_with_ffmpeg(name, reason=reason)), None
        info = SoundInfo(name=name, rate=sound.samplerate, channels=sound.channels)
        frames = _frames(sound, info, block_seconds, promised)
        yield from mono_blocks(
            frames,
            info,
            sample_rate=sample_rate,
            channel=channel,
            full_scale=full_scale,
            warn=warn,
        )


def duration_seconds(path: str | os.PathLike[str]) -> float | None:
    """Returns a file's length for a progress bar; for some MP3 files it is an estimate.

    Args:
      path: the file.

    Returns:
      Seconds, or None if only decoding the file would tell.
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
    sound: soundfile.SoundFile, info: SoundInfo, block_seconds: float, promised: int | None
) -> Iterator[np.ndarray]:
    """Yields float32 [s, channels] to the end, then checks for damage and missing frames.

    Args:
      sound: an open file.
      info: the file's name, rate and channels.
      block_seconds: approximate length of a block.
      promised: the number of frames by the file's header, if it is known and reliable.
    """
    frames_per_block = min(int(block_seconds * info.rate), _MAX_BLOCK_SAMPLES // info.channels)
    position, damage = 0, ""
    while not damage:
        block, damage = _read(sound, max(1, frames_per_block))
        if not len(block):
            break
        position += len(block)
        yield block
    seconds = position / info.rate
    if damage:
        raise SatError(
            f"{info.name}: truncated or damaged after {seconds:.2f} s ({damage}): {ADVICE}"
        )
    tolerance = _MP3_TOLERANCE * info.rate if sound.format == "MP3" else 0
    if promised is not None and position < promised - tolerance:
        raise SatError(
            f"{info.name}: truncated: {seconds:.2f} of {promised / info.rate:.2f} s are there: "
            f"{ADVICE}"
        )


def _read(sound: soundfile.SoundFile, frames: int) -> tuple[np.ndarray, str]:
    """Returns the next float32 [s, channels], and the damage after them if there is any."""
    block = np.full((frames, sound.channels), np.nan, np.float32)
    try:
        return sound.read(out=block), ""
    except soundfile.LibsndfileError as error:
        # libsndfile has filled in what it could decode, but soundfile does not say how much.
        decoded = np.count_nonzero(~np.isnan(block[:, -1]))
        return block[:decoded], describe_error(error)
