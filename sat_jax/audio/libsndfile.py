"""Opening files with libsndfile so that nothing is lost or passed over in silence."""

import contextlib
import os
import stat
from collections.abc import Iterator
from typing import BinaryIO

import soundfile

from sat_jax.audio import headers
from sat_jax.audio.ogg import WholePages, is_ogg
from sat_jax.errors import SatError

_UNKNOWN_LENGTH = 1 << 50
_DAMAGE = {
    "Supported file format but file is malformed.": "its header is damaged or cut off",
    "Internal error : SF_INFO struct incomplete.": "its header gives no usable sample rate",
    "Error in WAV file. No 'data' chunk marker.": "its header is damaged or cut off",
    "Channel count is zero.": "its header says that it has zero channels",
    "Too many channels specified.": "its header says that it has over 1024 channels",
}
_REASONS = {
    # What it says where a file begins like MP3 and no frame can be found.
    "File does not exist or is not a regular file (possibly a pipe?).": (
        "it begins like an MP3 file, but is damaged or cut off there"
    ),
}


def explain(error: soundfile.LibsndfileError) -> str:
    """Why libsndfile does not know a file, for people."""
    reason: str = error.error_string
    return _REASONS.get(reason, reason).rstrip(".")


class ForwardFile(soundfile.SoundFile):
    """A file that is only read forwards.

    SoundFile seeks to where it already is after each read if it can, and with Opus and MP3 the
    samples after such a seek differ from those of an uninterrupted read.
    """

    def seekable(self) -> bool:
        """Always False."""
        return False


@contextlib.contextmanager
def open_with_libsndfile(name: str) -> Iterator[tuple[soundfile.SoundFile, int | None]]:
    """Opens a file, or a named pipe, by its content, whatever its name ends in.

    Args:
      name: the path.

    Yields:
      The open file, and how many frames it must give; None where that cannot be known.

    Raises:
      SatError: the file cannot be opened, is empty or damaged; or, when leaving the context, it
        was seen to be cut.
      soundfile.LibsndfileError: libsndfile does not know the format.
    """
    with _open_bytes(name) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            with _open_pipe(file, name) as sound:
                yield sound, None
            return
        if os.fstat(file.fileno()).st_size == 0:
            raise SatError(f"{name}: is empty (0 bytes): give a file with audio in it")
        if is_ogg(file):
            with _open_ogg(file, name) as sound:
                yield sound, None
            return
        cut = _find_cut(file)
        is_counted_mp3 = headers.mp3_counts_frames(file)
        with _open_sound(file, name) as sound:
            is_sure = sound.format == "FLAC" or (sound.format == "MP3" and is_counted_mp3)
            if sound.frames or not cut:
                yield sound, sound.frames if is_sure and has_known_length(sound) else None
        if cut:
            raise SatError(f"{name}: truncated: {cut}: {headers.WAY_OUT}")


@contextlib.contextmanager
def _open_ogg(file: BinaryIO, name: str) -> Iterator[soundfile.SoundFile]:
    with _open_bytes(name, buffering=-1) as again:
        pages = WholePages(file, again)
        try:
            sound = ForwardFile(pages)
        except soundfile.LibsndfileError:
            _complain_of(pages, name)
            raise
        with sound:
            yield sound
        _complain_of(pages, name)


def _complain_of(pages: WholePages, name: str) -> None:
    pages.check()
    if pages.damage:
        raise SatError(f"{name}: {pages.damage}") from None


def has_known_length(sound: soundfile.SoundFile) -> bool:
    """Whether `sound.frames` is a number of frames; streamed FLAC has a huge stand-in there."""
    return sound.frames < _UNKNOWN_LENGTH


def _open_bytes(name: str, buffering: int = 0) -> BinaryIO:
    try:
        # libsndfile shares the file's position, of which a buffer would keep its own idea.
        return open(name, "rb", buffering=buffering)
    except OSError as error:
        raise SatError(f"{name}: cannot be opened: {error.strerror}") from None


def _open_pipe(file: BinaryIO, name: str) -> soundfile.SoundFile:
    try:
        return ForwardFile(file.fileno(), closefd=False)
    except soundfile.LibsndfileError as error:
        # What was read is gone, so that nothing else can have a try.
        raise SatError(
            f"{name}: cannot be read as a pipe ({error.error_string.rstrip('.')}): pipe WAV into "
            "it, or give a file"
        ) from None


def _find_cut(file: BinaryIO) -> str:
    """How the bytes show that some are missing; "" where they don't."""
    chunk = headers.find_samples(file)
    if chunk is not None and chunk.is_cut:
        return f"{chunk.available} of {chunk.declared} bytes of samples are there"
    return ""


def _open_sound(file: BinaryIO, name: str) -> soundfile.SoundFile:
    chunk = headers.find_samples(file)
    file.seek(0)
    try:
        sound = ForwardFile(file.fileno(), closefd=False)
    except soundfile.LibsndfileError as error:
        if damage := _DAMAGE.get(error.error_string):
            raise SatError(f"{name}: {damage}: {headers.WAY_OUT}") from None
        raise
    if chunk is not None and chunk.declared is None and sound.frames == 0:
        return _open_unfinished(file, sound, chunk.offset)
    return sound


class _Tail:
    """A file from some byte on, as an object that SoundFile can read."""

    def __init__(self, file: BinaryIO, offset: int) -> None:
        self._file = file
        self._offset = offset
        self.seek(0)

    def read(self, size: int) -> bytes:
        return self._file.read(size)

    def tell(self) -> int:
        return self._file.tell() - self._offset

    def seek(self, position: int, whence: int = os.SEEK_SET) -> int:
        start = self._offset if whence == os.SEEK_SET else 0
        return self._file.seek(start + position, whence) - self._offset


def _open_unfinished(
    file: BinaryIO, header: soundfile.SoundFile, offset: int
) -> soundfile.SoundFile:
    """Reopens a WAV file whose size says 0, and which libsndfile takes for empty, to its end."""
    with header:
        return ForwardFile(
            _Tail(file, offset),
            format="RAW",
            endian="LITTLE",
            subtype=header.subtype,
            samplerate=header.samplerate,
            channels=header.channels,
        )
