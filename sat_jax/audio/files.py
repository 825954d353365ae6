"""Reads audio files as blocks of mono samples."""

import contextlib
import os
import stat
from collections.abc import Generator, Iterator
from typing import Any, BinaryIO

import numpy as np
import soundfile

from sat_jax.audio.containers import find_container, find_start
from sat_jax.audio.ffmpeg import is_installed, open_with_ffmpeg
from sat_jax.audio.films import find_end, loss_by_header
from sat_jax.audio.libsndfile import UnreadableError, describe_error, open_file
from sat_jax.audio.metadata_tags import end_of_sound, is_padding, skip_tags
from sat_jax.audio.mono import SoundInfo, mono_blocks
from sat_jax.audio.parts import Part, open_part
from sat_jax.audio.sound_warnings import Warn, warn_in_python
from sat_jax.audio.view import read_at
from sat_jax.errors import SatError
from sat_jax.runtime.live_input import open_pipe

ADVICE = "get the whole file, or save what is left of it as a new WAV file"
"""What to do about a damaged file, for error messages."""

_SAVE = "save it as a new WAV file with one chunk of samples"
_MAX_BLOCK_SAMPLES = 1 << 22
_MAX_JUNK = 1 << 16  # Bytes behind a whole sound. More of them may be sound.


class LossError(SatError):
    """Sound is missing in a file, or damaged."""


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

    libsndfile reads it, or ffmpeg if libsndfile cannot and ffmpeg is installed. Integer samples are
    divided by their full scale (16-bit samples by 32768). A file with the rate `sample_rate` is not
    filtered. The samples do not depend on `block_seconds`.

    All sound in the file is read, whatever length its header claims; joined files are read one
    after another. If sound is missing or damaged, all that comes before it is read; then the error
    is raised. A cut file whose format has no length looks whole.

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
    if _is_pipe(name):
        yield from _read_named_pipe(
            name, sample_rate=sample_rate, channel=channel, full_scale=full_scale, warn=warn
        )
        return

    def convert(part: Part) -> Iterator[np.ndarray]:
        frames = _read_frames(part, name, block_seconds)
        info = SoundInfo(name=name, rate=part.sound.samplerate, channels=part.sound.channels)
        return mono_blocks(
            frames,
            info,
            sample_rate=sample_rate,
            channel=channel,
            full_scale=full_scale,
            warn=warn,
        )

    def read(refused: str = "") -> Iterator[np.ndarray]:
        with contextlib.closing(_open_parts(name, refused)) as parts:
            for part in parts:
                yield from convert(part)

    any_read = False
    try:
        for block in read():
            any_read = True
            yield block
        return
    except LossError as error:
        if any_read or not is_installed():
            raise
        reason = str(error).removeprefix(f"{name}: ")
    yield from read(reason)


def _is_pipe(path: str | os.PathLike[str]) -> bool:
    """Whether a path is a named pipe or a device, whose sound may come live."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)


def _read_named_pipe(name: str, **options: Any) -> Iterator[np.ndarray]:
    from sat_jax.audio.live import read_live_blocks  # It reads files, too.

    with open_file(name, open_pipe) as file:
        yield from read_live_blocks(file, name=name, takes_pcm=False, **options)


def duration_seconds(path: str | os.PathLike[str]) -> float | None:
    """Returns a file's length if that is known without decoding the file.

    Args:
      path: the file.

    Returns:
      Seconds, exact; None if only decoding would tell, or if sound is missing.
    """
    with open_whole(path) as part:
        frames = part and part.frames()
        return frames / part.sound.samplerate if part and frames is not None else None


@contextlib.contextmanager
def open_whole(path: str | os.PathLike[str]) -> Iterator[Part | None]:
    """Opens the first sound of a file to seek in it; None if libsndfile cannot read it."""
    name = os.fspath(path)
    with contextlib.ExitStack() as stack:
        part = None
        if os.path.isfile(name):
            with contextlib.suppress(SatError, UnreadableError):
                file = stack.enter_context(open_file(name))
                part = open_part(file, *_limits(file), seeks=True)
                stack.enter_context(part.sound)
        yield part


def _limits(file: BinaryIO) -> tuple[int, int]:
    """Returns where the first sound of a file begins, and where the last one ends."""
    return 0, end_of_sound(file, 0, os.fstat(file.fileno()).st_size)


def _open_parts(name: str, refused: str) -> Generator[Part, None, None]:
    """Opens the sounds of a file in turn.

    Args:
      name: the path.
      refused: why libsndfile shall not read the first sound; "" if it shall.

    Raises:
      SatError: the file cannot be opened or is empty, or a sound is damaged.
    """
    with open_file(name) as file:
        if os.fstat(file.fileno()).st_size == 0:
            raise SatError(f"{name}: empty (0 bytes): give a file with audio in it")
        begin, end = _limits(file)
        while True:
            try:
                if refused:
                    raise UnreadableError(refused)
                part = open_part(file, begin, end)
            except UnreadableError as error:
                if begin == 0 or find_container(lambda size: read_at(file, begin, size)):  # noqa: B023
                    begin = yield from _read_with_ffmpeg(file, name, begin, end, str(error))
                else:
                    begin = _skip_junk(file, name, begin, end, str(error))
            else:
                with part.sound:
                    yield part
                begin = part.next_begin()
            refused = ""
            begin = skip_tags(file, begin, end)
            if begin >= end:
                return


def _read_with_ffmpeg(
    file: BinaryIO, name: str, begin: int, end: int, reason: str
) -> Generator[Part, None, int]:
    """Yields a sound that libsndfile cannot read; returns where another one may begin."""
    if begin > 0:
        reason = f"{reason}, from byte {begin} on"
    begin = skip_tags(file, begin, end)  # Places in an MP4 count from its own beginning.
    promised = find_end(file, begin, end)
    stop = min(promised, end)
    with open_with_ffmpeg(name, reason=reason, begin=begin, end=stop) as sound:
        yield Part(sound)
    if loss := loss_by_header(file, begin, stop, promised):
        raise _loss_error(name, loss)
    return stop


def _skip_junk(file: BinaryIO, name: str, begin: int, end: int, reason: str) -> int:
    """Returns where the next sound begins behind other bytes; `end` if there is none."""
    start = find_start(read_at(file, begin, min(2 * _MAX_JUNK, end - begin)))
    if start is not None:
        return begin + start
    if end - begin <= _MAX_JUNK or is_padding(file, begin, end):
        return end
    raise LossError(f"{name}: only read up to byte {begin} of {end} ({reason}): {ADVICE}")


def _read_frames(part: Part, name: str, block_seconds: float) -> Iterator[np.ndarray]:
    """Yields float32 [s, channels] to the end of a sound, then checks that it is whole."""
    sound = part.sound
    size = min(int(block_seconds * sound.samplerate), _MAX_BLOCK_SAMPLES // sound.channels)
    position, damage = 0, ""
    while not damage:
        block, damage = read_next(sound, max(1, size))
        if not len(block):
            break
        position += len(block)
        yield block
    if loss := part.loss(position, damage):
        raise _loss_error(name, loss)


def _loss_error(name: str, loss: str) -> LossError:
    is_whole = loss.endswith("not read")
    return LossError(f"{name}: {loss}: {_SAVE if is_whole else ADVICE}")


def read_next(sound: soundfile.SoundFile, frames: int) -> tuple[np.ndarray, str]:
    """Returns the next float32 [s, channels], and the damage after them if there is any."""
    block = np.full((frames, sound.channels), np.nan, np.float32)
    try:
        return sound.read(out=block), ""
    except soundfile.LibsndfileError as error:
        # libsndfile has filled in what it could decode, but soundfile does not say how much.
        decoded = np.count_nonzero(~np.isnan(block[:, -1]))
        return block[:decoded], describe_error(error)
