"""Opens the sounds in a pipe one after another, with libsndfile or ffmpeg."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import soundfile

from sat_jax.audio.containers import container_of, find_start
from sat_jax.audio.ffmpeg import open_with_ffmpeg
from sat_jax.audio.files import ADVICE
from sat_jax.audio.films import FilmEnd
from sat_jax.audio.headers import Header, read_header, walk_chunks
from sat_jax.audio.layout import with_size
from sat_jax.audio.libsndfile import describe_error, known_frames
from sat_jax.audio.metadata_tags import skip_tags
from sat_jax.audio.pipe_file import READ_BYTES, PipeFile, PipeSound
from sat_jax.errors import SatError
from sat_jax.runtime.live_input import input_is_ended

MAX_HEADER_BYTES = 1 << 25
"""What may come before the samples, such as pictures."""

_MP3_TOLERANCE = 0.1  # seconds
_READ_AHEAD = 1 << 14
_LEAST_SAMPLES = 512  # bytes
_OPEN_SIZE = 0xFFFF_0000
"""Replaces open sizes in headers, because libsndfile refuses some of their usual values."""

_BY_LIBSNDFILE = ("WAV", "AIFF", "AU", "FLAC", "MP3", "SPHERE", "IRCAM", "old")
_BIG_ENDIAN = ("AIFF", "AU", "SVX")
_BYTES_PER_SAMPLE = {
    "PCM_S8": 1,
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
      header: what its header says; None if that has no size.
      frame_bytes: size of a frame; 0 if it is compressed.
      count_there: says how many frames the pipe brought, once it ended within compressed samples.
        libsndfile invents the others.
    """

    sound: soundfile.SoundFile
    frames: int | None = None
    slack: int = 0
    header: Header | None = None
    frame_bytes: int = 0
    count_there: Callable[[], int | None] = lambda: None


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
        rest = None if opened.header is None else _go_behind(pipe, opened.header, opened)
        following = _next_container(pipe, following)
        if following is None and rest is not None:
            with _reopen(pipe, opened.sound, rest) as more:
                yield PipedSound(more)
        if following is None:
            return
    else:
        reason = f"{following} from a pipe"
    content = FilmEnd(pipe.pieces(), following or "")
    with open_with_ffmpeg(name, reason=reason, content=content) as sound:
        yield PipedSound(sound)
    if content.loss and not input_is_ended():
        raise SatError(f"{name}: {content.loss}: {ADVICE}")


def _open(pipe: PipeFile, container: str) -> PipedSound:
    pipe.is_eager = container == "FLAC"  # Its decoder asks for more than it needs.
    try:
        sound, header = _open_within(pipe, READ_BYTES)
    except soundfile.LibsndfileError:
        sound, header = _open_within(pipe, MAX_HEADER_BYTES)
    frame_bytes = _BYTES_PER_SAMPLE.get(sound.subtype, 0) * sound.channels
    opened = PipedSound(sound, known_frames(sound), header=header, frame_bytes=frame_bytes)
    if header is None:
        is_mp3 = sound.format == "MP3"
        opened = opened._replace(slack=int(_MP3_TOLERANCE * sound.samplerate) if is_mp3 else 0)
    elif frame_bytes and header.size is None:
        opened = PipedSound(_reopen(pipe, sound, header.offset))
    elif frame_bytes:
        # Some writers count the bytes of the header too.
        slack = -(-header.offset // frame_bytes)
        opened = opened._replace(frames=header.size // frame_bytes, slack=slack)
    else:
        opened = _open_blocks(pipe, opened, header)
    pipe.forget()
    return opened


def _open_within(pipe: PipeFile, reach: int) -> tuple[soundfile.SoundFile, Header | None]:
    """Opens a sound; also returns its header, whose size is None if it is open."""
    pipe.reach = reach
    file: Any = pipe
    header = read_header(file, 0)
    if header and header.size:
        pipe.stop = header.offset + header.size
    elif header:
        header = header._replace(size=None)
        if header.fields:
            pipe.replace(0, with_size(file, 0, header, _OPEN_SIZE))
    pipe.seek(0)
    return PipeSound(pipe), header


def _open_blocks(pipe: PipeFile, opened: PipedSound, header: Header) -> PipedSound:
    """Lets a sound that is compressed in blocks end where the pipe ends."""
    bytes_per_frame = (header.size or _OPEN_SIZE) / max(1, opened.sound.frames)

    def count_there() -> int | None:
        end = pipe.short_at
        return None if end is None else round((end - header.offset) / bytes_per_frame)

    if header.size is None:
        opened = opened._replace(frames=None, header=None)
    return opened._replace(count_there=count_there)


def _go_behind(pipe: PipeFile, header: Header, opened: PipedSound) -> int | None:
    """Goes behind the chunks that follow samples; returns where more samples begin, if there are.

    A recorder that was stopped has not written its last size, so samples may go on behind it.
    """
    assert header.size is not None
    end = header.offset + header.size
    pipe.reach = MAX_HEADER_BYTES
    pipe.stop = limit = end + MAX_HEADER_BYTES
    file: Any = pipe
    position = end
    if header.chunks is not None:
        for chunk in walk_chunks(file, end + -end % header.chunks.alignment, header.chunks):
            if chunk.end > limit:
                break  # Its name is of samples.
            position = chunk.end
    is_other = position > end or skip_tags(file, end, limit) > end
    rest = end - header.size % max(1, opened.frame_bytes)
    has_more = not is_other and opened.frame_bytes and _has_more_samples(pipe, rest)
    pipe.seek(position)
    return rest if has_more else None


def _has_more_samples(pipe: PipeFile, position: int) -> bool:
    """Whether there is more than zeros up to the pipe's end."""
    pipe.seek(position)
    size = _LEAST_SAMPLES
    while size < MAX_HEADER_BYTES:
        data, _ = pipe.around(0, size)
        if len(data) < size or any(data):
            return any(data)
        size *= 2
    return True


def _next_container(pipe: PipeFile, container: str) -> str | None:
    """Goes to a sound that follows, as in joined files; returns None if there is none."""
    ahead = _READ_AHEAD
    if container == "FLAC":  # Its decoder reads ahead.
        pipe.seek(max(1, pipe.tell() - _READ_AHEAD))
        ahead *= 2
    start: int | None = 0
    while start is not None:  # Tags and other bytes may come between.
        begin = pipe.tell() + start
        pipe.seek(skip_tags(pipe, begin, begin + MAX_HEADER_BYTES))  # type: ignore[arg-type]
        data, _ = pipe.around(0, ahead)
        following = container_of(data)
        if following:
            pipe.begin_here()
            return following
        start = find_start(data, 1)
    return None


def _reopen(pipe: PipeFile, header: soundfile.SoundFile, begin: int) -> soundfile.SoundFile:
    """Opens samples without their number; they end where the pipe ends."""
    is_big = header.endian == "BIG" or (header.endian == "FILE" and header.format in _BIG_ENDIAN)
    with header:
        pipe.seek(begin)
        pipe.begin_here()
        pipe.forget()
        return PipeSound(
            pipe,
            format="RAW",
            endian="BIG" if is_big else "LITTLE",
            subtype=header.subtype,
            samplerate=header.samplerate,
            channels=header.channels,
        )
