"""Opens the sounds in a pipe one after another, with libsndfile or ffmpeg."""

import os
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import soundfile

from sat_jax.audio.containers import container_of, find_start
from sat_jax.audio.ffmpeg import open_with_ffmpeg
from sat_jax.audio.files import ADVICE
from sat_jax.audio.headers import read_header
from sat_jax.audio.libsndfile import describe_error, known_frames
from sat_jax.audio.ogg import PageEnd
from sat_jax.audio.pipe_file import READ_BYTES, PipeFile, PipeSound
from sat_jax.errors import SatError

MAX_HEADER_BYTES = 1 << 25
"""What may come before the samples, such as pictures."""

_MP3_TOLERANCE = 0.1  # seconds
_READ_AHEAD = 1 << 14
_ID3V1_BYTES = 128
_BY_LIBSNDFILE = ("WAV", "AIFF", "AU", "FLAC", "MP3", "SPHERE", "IRCAM", "old")
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


class PipedSound(NamedTuple):
    """An open sound.

    Attributes:
      sound: the sound.
      frames: number of frames by its header; None if unknown.
      slack: how many of them may be missing.
      end: position behind its samples; None if unknown.
    """

    sound: soundfile.SoundFile
    frames: int | None = None
    slack: int = 0
    end: int | None = None


def open_sounds(pipe: PipeFile, container: str, name: str) -> Iterator[PipedSound]:
    """Opens the sounds in a pipe one after another."""
    following: str | None = container
    while following in _BY_LIBSNDFILE:
        try:
            opened = _open(pipe, following)
        except soundfile.LibsndfileError as error:
            reason = describe_error(error)
            break
        with opened.sound:
            yield opened
        if opened.end is not None:
            pipe.seek(opened.end)
        is_wav, following = following == "WAV", _next_container(pipe, following)
        if following is None and is_wav and _has_more_samples(pipe):
            with _reopen(pipe, opened.sound) as rest:
                yield PipedSound(rest)
        if following is None:
            return
    else:
        reason = f"{following} from a pipe"
    content: Iterable[bytes] = pipe.pieces()
    if following == "Ogg":
        content = PageEnd(content)
    with open_with_ffmpeg(name, reason=reason, content=content) as sound:
        yield PipedSound(sound)
    if isinstance(content, PageEnd) and content.is_cut:
        raise SatError(f"{name}: truncated: it ends in the middle of an Ogg page: {ADVICE}")


def _open(pipe: PipeFile, container: str) -> PipedSound:
    pipe.is_eager = container == "FLAC"  # Its decoder asks for more than it needs.
    try:
        sound, begin, size = _open_within(pipe, READ_BYTES)
    except soundfile.LibsndfileError:
        sound, begin, size = _open_within(pipe, MAX_HEADER_BYTES)
    frame_bytes = _BYTES_PER_SAMPLE.get(sound.subtype, 0) * sound.channels
    opened = PipedSound(sound, known_frames(sound))
    if container == "WAV" and frame_bytes and size is None:
        opened = PipedSound(_reopen(pipe, sound))
    elif frame_bytes and size is not None:
        # Some writers count the bytes of the header too.
        slack = -(-begin // frame_bytes)
        opened = PipedSound(sound, size // frame_bytes, slack, begin + size)
    elif sound.format == "MP3":
        opened = opened._replace(slack=int(_MP3_TOLERANCE * sound.samplerate))
    pipe.forget()
    return opened


def _open_within(pipe: PipeFile, reach: int) -> tuple[soundfile.SoundFile, int, int | None]:
    """Opens a sound; also returns where its samples begin, and their bytes by its header."""
    pipe.reach = reach
    header = read_header(pipe, 0)  # type: ignore[arg-type]
    begin, size = (header.offset, header.size or None) if header else (0, None)
    if size is not None:
        pipe.stop = begin + size
    pipe.seek(0)
    return PipeSound(pipe), begin, size


def _has_more_samples(pipe: PipeFile) -> bool:
    """Whether samples go on behind those that a WAV header counts; chunks have names of letters."""
    data, _ = pipe.around(0, 5)
    return len(data) == 5 and not re.match(rb"\0?[ -~]{4}|TAG|\0{5}", data)


def _next_container(pipe: PipeFile, container: str) -> str | None:
    """Goes to a sound that follows, as in joined files; returns None if there is none."""
    # FLAC's decoder reads ahead. Tags and other chunks may come between.
    data, place = pipe.around(_READ_AHEAD if container == "FLAC" else 0, _READ_AHEAD)
    for start in (find_start(data, min(1, place)) or place, place, place + _ID3V1_BYTES):
        following = container_of(data[start:])
        if following:
            pipe.seek(start - place, os.SEEK_CUR)
            pipe.begin_here()
            return following
    return None


def _reopen(pipe: PipeFile, header: soundfile.SoundFile) -> soundfile.SoundFile:
    """Opens the samples behind a header without their number; they end where the pipe ends."""
    order = "BIG" if pipe.peek(4) == b"RIFX" else "LITTLE"
    with header:
        pipe.begin_here()
        pipe.forget()
        return PipeSound(
            pipe,
            format="RAW",
            endian=order,
            subtype=header.subtype,
            samplerate=header.samplerate,
            channels=header.channels,
        )
