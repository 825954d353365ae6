"""Reads sound from pipes while it comes: raw samples, and files of any format."""

import contextlib
import tempfile
from collections.abc import Iterable, Iterator
from typing import IO, Any

import numpy as np
import soundfile

from sat_jax.audio.containers import find_container
from sat_jax.audio.ffmpeg import is_installed, open_with_ffmpeg
from sat_jax.audio.files import ADVICE, read_blocks, read_next
from sat_jax.audio.libsndfile import describe_error, known_frames
from sat_jax.audio.mono import SoundInfo, mono_blocks
from sat_jax.audio.ogg import PageEnd
from sat_jax.audio.pcm import pcm_frames
from sat_jax.audio.pipe_file import PipeFile, PipeSound
from sat_jax.audio.sound_warnings import Warn, warn_in_python
from sat_jax.errors import SatError

_BLOCK_SECONDS = 0.02  # Tags wait for the end of a block.
_MAX_HEADER_BYTES = 1 << 25  # Pictures may come before the samples.
_MP3_TOLERANCE = 0.1  # seconds
_BY_LIBSNDFILE = ("WAV", "AIFF", "AU", "FLAC", "MP3", "SPHERE", "VOC", "IRCAM", "old")
_READ_FROM_THE_END = ("CAF", "WavPack", "Monkey's Audio")
_BYTES_PER_SAMPLE = {
    "PCM_U8": 1,
    "PCM_16": 2,
    "PCM_24": 3,
    "PCM_32": 4,
    "FLOAT": 4,
    "DOUBLE": 8,
    "ULAW": 1,
    "ALAW": 1,
}


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
    with _open(pipe, container, name) as (sound, promised):
        info = SoundInfo(name=name, rate=sound.samplerate, channels=sound.channels)
        for flag, given, real in (
            ("--stdin_rate", rate, info.rate),
            ("--stdin_channels", channels, info.channels),
        ):
            if given not in (None, real):
                warn(f"{name}: is {container}, whose header says {real}: {flag} {given} is ignored")
        yield from mono_blocks(_frames(sound, name, promised), info, **options)


def _needs_the_end(container: str, pipe: PipeFile) -> bool:
    """Whether a file can only be read once it is whole."""
    if container == "Ogg":  # libsndfile looks for its length at the end.
        return not is_installed()
    is_mp4 = container == "MP4" and is_installed()
    return container in _READ_FROM_THE_END or (is_mp4 and not _begins_with_index(pipe))


def _begins_with_index(pipe: PipeFile) -> bool:
    """Whether the boxes of an MP4 file have its index before its samples."""
    position = 0
    while position < _MAX_HEADER_BYTES:
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


@contextlib.contextmanager
def _open(
    pipe: PipeFile, container: str, name: str
) -> Iterator[tuple[soundfile.SoundFile, int | None]]:
    """Opens a file from a pipe; yields the sound and the number of frames, None if unknown."""
    reason = f"{container} from a pipe"
    if container in _BY_LIBSNDFILE:
        try:
            sound = _open_with_libsndfile(pipe, container)
        except soundfile.LibsndfileError as error:
            reason = describe_error(error)
        else:
            with sound:
                yield sound, known_frames(sound)
            return
    content: Iterable[bytes] = pipe.pieces()
    if container == "Ogg":
        content = PageEnd(content)
    with open_with_ffmpeg(name, reason=reason, content=content) as sound:
        yield sound, None
    if isinstance(content, PageEnd) and content.is_cut:
        raise SatError(f"{name}: truncated: it ends in the middle of an Ogg page: {ADVICE}")


def _open_with_libsndfile(pipe: PipeFile, container: str) -> soundfile.SoundFile:
    pipe.is_eager = container == "FLAC"  # Its decoder asks for more than it needs.
    try:
        sound = PipeSound(pipe)
    except soundfile.LibsndfileError:
        pipe.reach = _MAX_HEADER_BYTES
        pipe.seek(0)
        sound = PipeSound(pipe)
    if container == "WAV" and _has_open_size(sound):
        sound = _reopen(pipe, sound)
    pipe.forget()
    return sound


def _has_open_size(sound: soundfile.SoundFile) -> bool:
    """Whether the writer of a WAV header left its size open: 0, about 2 or 4 GiB, or none."""
    frame_bytes = _BYTES_PER_SAMPLE.get(sound.subtype, 0) * sound.channels
    size = sound.frames * frame_bytes
    if not frame_bytes or sound.format == "W64":
        return False
    if sound.format == "RF64":
        return size == 0
    is_about_2_gib = 0x7FFF_F000 - frame_bytes < size <= 0x8000_0000
    return size == 0 or is_about_2_gib or size > 0xFFFF_F000 - frame_bytes


def _reopen(pipe: PipeFile, header: soundfile.SoundFile) -> soundfile.SoundFile:
    """Opens the samples behind a header without their number; they end where the pipe ends."""
    order = "BIG" if pipe.peek(4) == b"RIFX" else "LITTLE"
    with header:
        pipe.begin_here()
        return PipeSound(
            pipe,
            format="RAW",
            endian=order,
            subtype=header.subtype,
            samplerate=header.samplerate,
            channels=header.channels,
        )


def _frames(sound: soundfile.SoundFile, name: str, promised: int | None) -> Iterator[np.ndarray]:
    """Yields float32 [s, channels] to the end, and checks that nothing is missing."""
    size = max(1, int(_BLOCK_SECONDS * sound.samplerate))
    position, damage = 0, ""
    while not damage:
        block, damage = read_next(sound, size)
        if not len(block):
            break
        position += len(block)
        yield block
    seconds = position / sound.samplerate
    if damage:
        raise SatError(f"{name}: truncated or damaged after {seconds:.2f} s ({damage}): {ADVICE}")
    tolerance = _MP3_TOLERANCE * sound.samplerate if sound.format == "MP3" else 0
    if promised is not None and position < promised - tolerance:
        raise SatError(
            f"{name}: truncated: {seconds:.2f} of {promised / sound.samplerate:.2f} s are there: "
            f"{ADVICE}"
        )
