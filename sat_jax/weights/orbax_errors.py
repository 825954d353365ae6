"""Errors of orbax as one line."""

import contextlib
import functools
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from absl import logging

from sat_jax.errors import SatError


@contextlib.contextmanager
def orbax_errors(message: str) -> Iterator[None]:
    """Turns any error raised while orbax reads a checkpoint into a `SatError` of one line.

    Args:
      message: start of the line: which checkpoint is damaged, and what to do.

    Raises:
      SatError: reading failed; orbax and its store raise many kinds of errors.
    """
    # Whatever orbax logs here is also raised, or concerns a file that is not needed.
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.FATAL)
    try:
        yield
    except Exception as error:
        _hide_abandoned_reads()
        raise SatError(f"{message}: {_reason(error)}") from error
    finally:
        logging.set_verbosity(verbosity)


@contextlib.contextmanager
def orbax_write_errors(path: str | Path) -> Iterator[None]:
    """Turns errors of orbax and its store, such as of a full disk, into a `SatError` of one line.

    Args:
      path: the folder that is written.

    Raises:
      SatError: writing failed.
    """
    try:
        yield
    except (OSError, ValueError) as error:
        _hide_abandoned_reads()
        raise SatError(f"cannot write {path}: {_reason(error)}") from error


def _reason(error: BaseException) -> str:
    """Returns the first line of the error behind an error."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__


@functools.cache  # Once is enough.
def _hide_abandoned_reads() -> None:
    """Drops tracebacks of arrays that orbax was still reading or writing when it stopped.

    orbax stops at the first array that fails and closes its event loop (seen in orbax-checkpoint
    0.12). Each of the others then prints a traceback from a thread, or when it is collected, long
    after the error that was reported.
    """
    before = sys.unraisablehook

    def hook(unraisable: Any) -> None:
        code = getattr(unraisable.object, "cr_code", None)
        is_orbax = code is not None and f"{os.sep}orbax{os.sep}" in code.co_filename
        if not is_orbax and str(unraisable.exc_value) != "Event loop is closed":
            before(unraisable)

    sys.unraisablehook = hook
