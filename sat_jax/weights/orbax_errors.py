"""Errors of orbax as one line."""

import contextlib
import functools
import logging
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from absl import logging as absl_logging

from sat_jax.errors import SatError
from sat_jax.runtime.files import explain_write_errors


@contextlib.contextmanager
def orbax_errors(message: str) -> Iterator[None]:
    """Turns any error raised while orbax reads a checkpoint into a `SatError` of one line.

    Args:
      message: start of the line: which checkpoint is damaged, and what to do.

    Raises:
      SatError: reading failed; orbax and its store raise many kinds of errors.
    """
    with _quiet_orbax():
        try:
            yield
        except Exception as error:
            raise SatError(f"{message}: {_reason(error)}") from error


@contextlib.contextmanager
def orbax_write_errors(path: str | Path) -> Iterator[None]:
    """Turns errors of orbax and its store, such as of a full disk, into a `SatError` of one line.

    Args:
      path: the folder that is written.

    Raises:
      SatError: writing failed.
    """
    hide_abandoned_arrays()
    with _quiet_orbax(), explain_write_errors(path):
        try:
            yield
        except ValueError as error:  # Of the store, which tells the system's error in its text.
            if code := re.search(r"os_error_code='(\d+)'", str(error)):
                raise OSError(int(code[1]), os.strerror(int(code[1]))) from error
            raise SatError(f"cannot write {path}: {_reason(error)}") from error


@contextlib.contextmanager
def _quiet_orbax() -> Iterator[None]:
    """Hides what orbax logs: it is also raised, or concerns a file that is not needed."""
    verbosity = absl_logging.get_verbosity()
    absl_logging.set_verbosity(absl_logging.FATAL)
    try:
        yield
    finally:
        absl_logging.set_verbosity(verbosity)


def _reason(error: BaseException) -> str:
    """Returns the first line of the error behind an error."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__


def hide_abandoned_arrays() -> None:
    """Drops tracebacks of arrays that orbax was still writing when it stopped.

    orbax stops at the first array that fails and closes its event loop (seen in orbax-checkpoint
    0.12). Each of the others then prints a traceback from a thread, or when it is collected, before
    or long after the error that is raised. Reading has no such arrays, see
    `sat_jax.weights.orbax_handlers.patient_handlers`.
    """
    if getattr(sys.unraisablehook, "func", None) is not _pass_on:
        sys.unraisablehook = functools.partial(_pass_on, sys.unraisablehook)
    logging.getLogger("asyncio").addFilter(_is_foreign)


def _pass_on(hook: Callable[[Any], object], unraisable: Any) -> None:
    is_late = str(unraisable.exc_value) == "Event loop is closed"
    if not is_late and not _passed_orbax(unraisable.exc_traceback):
        hook(unraisable)


def _is_foreign(record: logging.LogRecord) -> bool:
    return not (record.exc_info and _passed_orbax(record.exc_info[2]))


def _passed_orbax(trace: TracebackType | None) -> bool:
    files = [frame.f_code.co_filename for frame, _ in traceback.walk_tb(trace)]
    return any(f"{os.sep}orbax{os.sep}" in file for file in files)
