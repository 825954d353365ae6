"""Opens files with libsndfile, and reports missing or damaged parts."""

import contextlib
import os
import stat
from collections.abc import Iterator
from typing import BinaryIO

import soundfile

from sat_jax.audio import headers
from sat_jax.audio.ogg import CheckedOgg, is_ogg
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
    # Said of a file that begins like MP3 but holds no frame.
    "File does not exist or is not a regular file (possibly a pipe?).": (
        "it begins like an MP3 file, but is damaged or cut off there"
    ),
}


def describe_error(error: soundfile.LibsndfileError) -> str:
    """Returns the reason why libsndfile cannot read a file, for error messages."""
    reason: str = error.error_string
    return _REASONS.get(reason, reason).removeprefix("Error : ").rstrip(".")


class ForwardFile(soundfile.SoundFile):
    """A sound file that reports that it cannot seek.

    `SoundFile` seeks to the current position after each read. With Opus and MP3 the samples after
    such a seek differ from those of an uninterrupted read.
    """

    def seekable(self) -> bool:
        """Returns False."""
        return False


@contextlib.contextmanager
def open_with_libsndfile(name: str) -> Iterator[tuple[soundfile.SoundFile, int | None]]:
    """Opens a file or a named pipe; its content determines the format, its name does not.

    Args:
      name: the path.

    Yields:
      The open file, and the number of frames that it must contain; None if that is unknown.

    Raises:
      SatError: the file cannot be opened, or is empty or damaged. A truncated file raises it when
        the context is left.
      soundfile.LibsndfileError: libsndfile does not know the format.
    """
    with _open_bytes(name) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            with _open_pipe(file, name) as sound:
                yield sound, None
            return
        if os.fstat(file.fileno()).st_size == 0:
            raise SatError(f"{name}: empty (0 bytes): give a file with audio in it")
        if is_ogg(file):
            with _open_ogg(file, name) as sound:
                yield sound, None
            return
        chunk = headers.find_sample_chunk(file)
        is_truncated = chunk is not None and chunk.is_truncated
        is_counted_mp3 = headers.mp3_counts_frames(file)
        with _open_sound(file, name, chunk) as sound:
            is_reliable = sound.format == "FLAC" or (sound.format == "MP3" and is_counted_mp3)
            if sound.frames or not is_truncated:
                yield sound, sound.frames if is_reliable and has_known_length(sound) else None
        if chunk is not None and is_truncated:
            raise SatError(
                f"{name}: truncated: {chunk.available} of {chunk.declared} bytes of samples are "
                f"there: {headers.ADVICE}"
            )


@contextlib.contextmanager
def _open_ogg(file: BinaryIO, name: str) -> Iterator[soundfile.SoundFile]:
    with _open_bytes(name, buffering=-1) as again:
        checked = CheckedOgg(file, again)
        try:
            sound = ForwardFile(checked)
        except soundfile.LibsndfileError:
            _raise_damage(checked, name)
            raise
        with sound:
            yield sound
        _raise_damage(checked, name)


def _raise_damage(checked: CheckedOgg, name: str) -> None:
    checked.check_next_page()
    if checked.damage:
        raise SatError(f"{name}: {checked.damage}") from None


def has_known_length(sound: soundfile.SoundFile) -> bool:
    """Whether `sound.frames` is the number of frames; for streamed FLAC it is a huge constant."""
    return sound.frames < _UNKNOWN_LENGTH


def _open_bytes(name: str, buffering: int = 0) -> BinaryIO:
    try:
        # libsndfile shares the file's position, which a Python buffer would not follow.
        return open(name, "rb", buffering=buffering)
    except OSError as error:
        raise _cannot_open(name, error) from None


def _cannot_open(name: str, error: OSError) -> SatError:
    return SatError(f"{name}: cannot be opened: {error.strerror}")


def check_exists(name: str) -> None:
    """Raises the `SatError` of opening a file if it does not exist."""
    try:
        os.stat(name)  # Opening a named pipe would wait for its writer.
    except OSError as error:
        raise _cannot_open(name, error) from None


def _open_pipe(file: BinaryIO, name: str) -> soundfile.SoundFile:
    try:
        return ForwardFile(file.fileno(), closefd=False)
    except soundfile.LibsndfileError as error:
        # ffmpeg cannot try: what was read from the pipe is gone.
        raise SatError(
            f"{name}: this pipe cannot be read ({error.error_string.rstrip('.')}): pipe WAV into "
            "it, or give a file"
        ) from None


def _open_sound(
    file: BinaryIO, name: str, chunk: headers.SampleChunk | None
) -> soundfile.SoundFile:
    file.seek(0)
    try:
        sound = ForwardFile(file.fileno(), closefd=False)
    except soundfile.LibsndfileError as error:
        if damage := _DAMAGE.get(error.error_string):
            raise SatError(f"{name}: {damage}: {headers.ADVICE}") from None
        raise
    if chunk is not None and chunk.declared is None and sound.frames == 0:
        return _open_unfinished(file, sound, chunk.offset)
    return sound


class _Tail:
    """A file object that begins at an offset of another one."""

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
    """Reopens a WAV file whose header says 0 samples, and reads it up to its end."""
    with header:
        return ForwardFile(
            _Tail(file, offset),
            format="RAW",
            endian="LITTLE",
            subtype=header.subtype,
            samplerate=header.samplerate,
            channels=header.channels,
        )
