"""Ends live input on a signal, as if its producer had ended it."""

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import ParamSpec, TypeVar

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

_waits = False
_is_ended = False


class _EndOfInput(BaseException):
    """Ends a wait for input."""


def end_input_on(number: int) -> None:
    """Lets a signal end all input from here on. A second one interrupts like Ctrl-C."""
    signal.signal(number, _handle)


def input_is_ended() -> bool:
    """Whether a signal ended the input."""
    return _is_ended


def wait_for(
    function: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs
) -> Result | None:
    """Calls a function that waits for input; returns None once a signal ends the input."""
    try:
        return _wait(function, *args, **kwargs)
    except _EndOfInput:
        return None


def _wait(
    function: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs
) -> Result | None:
    global _waits
    # Signals reach the main thread only.
    is_main = threading.current_thread() is threading.main_thread()
    try:
        # From here on the signal raises; one that came before has left its mark.
        _waits = _waits or is_main
        return None if _is_ended else function(*args, **kwargs)
    finally:
        _waits = _waits and not is_main


def _handle(number: int, frame: FrameType | None) -> None:
    global _is_ended
    if _is_ended:
        raise KeyboardInterrupt
    _is_ended = True
    if _waits:
        raise _EndOfInput
