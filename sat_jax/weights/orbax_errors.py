"""Errors of orbax as one line."""

import contextlib
import sys
from collections.abc import Iterator
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
    # orbax stops at the first damaged array and closes its event loop while other arrays are
    # still being read (seen in orbax-checkpoint 0.12). Each of them then prints a traceback from a
    # thread, long after the error. Only those tracebacks are dropped.
    before = sys.unraisablehook

    def drop_late_arrays(unraisable: Any) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            before(unraisable)

    sys.unraisablehook = drop_late_arrays
    # Whatever orbax logs here is also raised, or concerns a file that is not needed.
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.FATAL)
    try:
        yield
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise SatError(f"{message}: {reason}") from error
    else:
        sys.unraisablehook = before
    finally:
        logging.set_verbosity(verbosity)
