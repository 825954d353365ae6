"""Reads sound from pipes while it comes: raw samples, and files of any format."""

import tempfile
from collections.abc import Iterator
from typing import IO, Any

import numpy as np

from sat_jax.audio.containers import find_container
from sat_jax.audio.ffmpeg import is_installed
from sat_jax.audio.files import ADVICE, read_blocks, read_next
from sat_jax.audio.mono import SoundInfo, mono_blocks
from sat_jax.audio.pcm import pcm_frames
from sat_jax.audio.pipe_file import PipeFile
from sat_jax.audio.pipe_sounds import MAX_HEADER_BYTES, PipedSound, open_sounds
from sat_jax.audio.sound_warnings import Warn, warn_in_python
from sat_jax.errors import SatError

_BLOCK_SECONDS = 0.02  # Tags wait for the end of a block.
_READ_WHOLE = ("CAF", "VOC", "SDS", "WavPack", "Monkey's Audio")  # Their end is needed first.


def read_live_blocks(
    stream: IO[bytes],
    *,
    name: str,
    rate: int | None = None,
    channels: int | None = None,
    takes_pcm: bool = True,
    sample_rate: int = 16_000,
    channel: int | None = None,
    full_scale: float = 1.0,
    warn: Warn = warn_in_python,
) -> Iterator[np.ndarray]:
    """Reads a sound file from a pipe, or 16-bit PCM, and yields samples as soon as they arrive.

    The first bytes tell the format. libsndfile decodes most files, ffmpeg the others if it is
    installed. Files that can only be read once they are whole go to a temporary file first: MP4
    whose index is at the end, and Ogg without ffmpeg. Anything else is little-endian PCM.

    Args:
      stream: a binary pipe.
      name: the stream's name in messages.
      rate: sample rate of PCM, Hz; None is 16000.
      channels: number of interleaved channels of PCM; None is 1.
      takes_pcm: whether a stream that is no sound file is PCM; otherwise it is refused.
      sample_rate: sample rate of the result, Hz.
      channel: the channel to keep, counted from 0; None for the mean of all channels.
      full_scale: see `read_blocks`.
      warn: receives a line if `rate` or `channels` differ from those of a file; see `read_blocks`.

    Yields:
      float32 [s], mono at `sample_rate`, of varying length, never empty.

    Raises:
      SatError: while iterating; see `read_blocks`.
    """
    options: dict[str, Any] = {
        "sample_rate": sample_rate,
        "channel": channel,
        "full_scale": full_scale,
        "warn": warn,
    }
    pipe = PipeFile(stream)
    container = find_container(pipe.peek)
    if container is None:
        if not takes_pcm and pipe.peek(1):
            raise SatError(f"{name}: begins like no sound file: pipe WAV into it, or PCM into -")
        info = SoundInfo(
            name=name,
            rate=16_000 if rate is None else rate,
            channels=1 if channels is None else channels,
        )
        yield from mono_blocks(pcm_frames(pipe.pieces(), info.channels), info, **options)
        return
    if _needs_the_end(container, pipe):
        yield from _read_spooled(pipe, name, **options)
        return
    for opened in open_sounds(pipe, container, name):
        sound = opened.sound
        info = SoundInfo(name=name, rate=sound.samplerate, channels=sound.channels)
        for flag, given, real in (
            ("--stdin_rate", rate, info.rate),
            ("--stdin_channels", channels, info.channels),
        ):
            if given not in (None, real):
                warn(f"{name}: is {container}, whose header says {real}: {flag} {given} is ignored")
        yield from mono_blocks(_frames(opened, name), info, **options)


def _needs_the_end(container: str, pipe: PipeFile) -> bool:
    """Whether a file can only be read once it is whole."""
    if container == "Ogg":  # libsndfile looks for its length at the end.
        return not is_installed()
    is_mp4 = container == "MP4" and is_installed()
    return container in _READ_WHOLE or (is_mp4 and not _begins_with_index(pipe))


def _begins_with_index(pipe: PipeFile) -> bool:
    """Whether the boxes of an MP4 file have its index before its samples."""
    position = 0
    while position < MAX_HEADER_BYTES:
        header = pipe.peek(position + 16)[position:]
        size, kind = int.from_bytes(header[:4]), header[4:8]
        if kind in (b"moov", b"moof"):
            return True
        if size == 1:
            size = int.from_bytes(header[8:])
        if kind == b"mdat" or size < 8:
            return False
        position += size
    return False


def _read_spooled(pipe: PipeFile, name: str, **options: Any) -> Iterator[np.ndarray]:
    with tempfile.NamedTemporaryFile(prefix="sat-jax-") as file:
        for piece in pipe.pieces():
            file.write(piece)
        file.flush()
        try:
            yield from read_blocks(file.name, **options)
        except SatError as error:
            raise SatError(str(error).replace(file.name, name)) from None


def _frames(opened: PipedSound, name: str) -> Iterator[np.ndarray]:
    """Yields float32 [s, channels] to the end, then raises an error if sound is missing."""
    sound, frames = opened.sound, opened.frames
    size = max(1, int(_BLOCK_SECONDS * sound.samplerate))
    position, damage = 0, ""
    while not damage and position != frames:
        # Behind the last frame libsndfile may stumble over what follows.
        block, damage = read_next(sound, size if frames is None else min(size, frames - position))
        there = opened.count_there()
        if there is not None:
            block = block[: max(0, there - position)]
        if not len(block):
            break
        position += len(block)
        yield block
    seconds = position / sound.samplerate
    if damage:
        raise SatError(f"{name}: truncated or damaged after {seconds:.2f} s ({damage}): {ADVICE}")
    if frames is not None and position < frames - opened.slack:
        raise SatError(
            f"{name}: truncated: {seconds:.2f} of {frames / sound.samplerate:.2f} s are there: "
            f"{ADVICE}"
        )
