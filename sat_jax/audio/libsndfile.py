"""Opens sounds with libsndfile."""

import os
from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np
import soundfile

from sat_jax.audio.view import View
from sat_jax.errors import SatError
from sat_jax.runtime.quiet import C_SILENCE

_UNKNOWN_LENGTH = 1 << 50
_DAMAGE = {
    "Supported file format but file is malformed.": "its header is damaged or cut off",
    "Internal error : SF_INFO struct incomplete.": "its header gives no usable sample rate",
    "Error in WAV file. No 'data' chunk marker.": "its header is damaged or cut off",
    "Channel count is zero.": "its header says that it has zero channels",
    "Too many channels specified.": "its header says that it has over 1024 channels",
    # Said of a file that begins like MP3 but holds no frame.
    "File does not exist or is not a regular file (possibly a pipe?).": (
        "it begins like an MP3 file, but is damaged or cut off there"
    ),
}


class UnreadableError(Exception):
    """libsndfile cannot open a sound; the text is the reason."""


class ForwardFile(soundfile.SoundFile):
    """A sound file that reports that it cannot seek, and whose decoder prints nothing.

    `SoundFile` seeks to the current position after each read. With Opus and MP3 the samples after
    such a seek differ from those of an uninterrupted read.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        """Opens a sound; see `soundfile.SoundFile`."""
        with C_SILENCE:
            super().__init__(*args, **options)

    def read(self, *args: Any, **options: Any) -> np.ndarray:
        """Reads frames; see `soundfile.SoundFile.read`."""
        with C_SILENCE:
            return super().read(*args, **options)

    def seekable(self) -> bool:
        """Returns False."""
        return False


def open_bytes(file: BinaryIO, begin: int) -> ForwardFile:
    """Opens the sound that begins at a byte of an unbuffered file, and shares its position.

    Raises:
      UnreadableError: libsndfile cannot read it.
    """
    file.seek(begin)
    return _open(file.fileno(), closefd=False)


def open_view(view: View) -> ForwardFile:
    """Opens a sound; its content determines the format.

    Raises:
      UnreadableError: libsndfile cannot read it.
    """
    return _open(view)


def _open(file: View | int, **options: bool) -> ForwardFile:
    try:
        return ForwardFile(file, **options)
    except soundfile.LibsndfileError as error:
        raise UnreadableError(describe_error(error)) from None


def describe_error(error: soundfile.LibsndfileError) -> str:
    """Returns the reason why libsndfile cannot read a file, for error messages."""
    reason: str = error.error_string
    return _DAMAGE.get(reason, reason).removeprefix("Error : ").rstrip(".")


def known_frames(sound: soundfile.SoundFile) -> int | None:
    """Returns the number of frames by the header; None if libsndfile gives a huge constant."""
    return sound.frames if sound.frames < _UNKNOWN_LENGTH else None


def _open_unbuffered(name: str) -> BinaryIO:
    return open(name, "rb", buffering=0)


def open_file(name: str, open_it: Callable[[str], BinaryIO] = _open_unbuffered) -> BinaryIO:
    """Opens a file without a buffer.

    Args:
      name: its path.
      open_it: what opens it.

    Raises:
      SatError: it cannot be opened.
    """
    try:
        return open_it(name)
    except OSError as error:
        raise _cannot_open(name, error) from None


def check_exists(name: str) -> None:
    """Raises the `SatError` of opening a file if it does not exist."""
    try:
        os.stat(name)  # Opening a named pipe would wait for its writer.
    except OSError as error:
        raise _cannot_open(name, error) from None


def _cannot_open(name: str, error: OSError) -> SatError:
    return SatError(f"{name}: cannot be opened: {error.strerror}")
