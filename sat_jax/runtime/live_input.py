"""Ends live input on a signal, as if its producer had ended it."""

import os
import select
import signal
from types import FrameType
from typing import IO, BinaryIO

_is_ended = False
_wakeup: list[int] = []
"""The end of a pipe that gets a byte from each signal: a signal may come just before a wait."""


def end_input_on(number: int) -> None:
    """Lets a signal end all input from here on. A second one interrupts like Ctrl-C.

    Call it in the main thread.
    """
    if not _wakeup and os.name == "posix":
        reader, writer = os.pipe()
        os.set_blocking(reader, False)
        os.set_blocking(writer, False)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        _wakeup.append(reader)
    signal.signal(number, _handle)


def input_is_ended() -> bool:
    """Whether a signal ended the input."""
    return _is_ended


def open_pipe(name: str) -> BinaryIO:
    """Opens a named pipe or a device without waiting for its writer; `read_input` waits.

    Raises:
      OSError: it cannot be opened.
    """

    def opener(path: str, flags: int) -> int:
        return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))

    file = open(name, "rb", buffering=0, opener=opener)  # noqa: SIM115
    os.set_blocking(file.fileno(), True)
    return file


def read_input(stream: IO[bytes], size: int) -> bytes:
    """Waits for bytes and returns at most `size`; b"" at the end, or once a signal ended the input.

    Args:
      stream: without a buffer.
      size: at least 1.
    """
    if os.name == "posix" and not _wait(stream):
        return b""
    return b"" if _is_ended else stream.read(size) or b""


def _wait(stream: IO[bytes]) -> bool:
    """Waits until a stream has bytes or ends; returns False once a signal ended the input."""
    try:
        number = stream.fileno()
    except (AttributeError, OSError):
        return True  # No file of the system, so it does not wait.
    while not _is_ended:
        ready, _, _ = select.select([number, *_wakeup], [], [])
        if number in ready:
            return True
        os.read(_wakeup[0], 1 << 12)
    return False


def _handle(number: int, frame: FrameType | None) -> None:
    global _is_ended
    if _is_ended:
        raise KeyboardInterrupt
    _is_ended = True
