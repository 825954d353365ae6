"""What reading damaged checkpoints with orbax needs."""

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

from absl import logging

from sat_jax.errors import SatError


@contextlib.contextmanager
def restoring(complaint: str) -> Iterator[None]:
    """Turns whatever is raised while a checkpoint is read into one line.

    Args:
      complaint: the start of that line: which checkpoint, and the way out.

    Raises:
      SatError: reading failed, for any reason; orbax and its store raise many kinds of errors.
    """
    # orbax gives up at the first damaged array and closes its event loop while other arrays are
    # still on their way (seen in orbax-checkpoint 0.12): each one then prints a traceback from a
    # thread of the store, long after the error itself. Those alone are dropped.
    before = sys.unraisablehook

    def drop_late_arrays(unraisable: Any) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            before(unraisable)

    sys.unraisablehook = drop_late_arrays
    # What orbax logs is either raised as well, or about a file that nothing depends on.
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.FATAL)
    try:
        yield
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise SatError(f"{complaint}: {reason}") from error
    else:
        sys.unraisablehook = before
    finally:
        logging.set_verbosity(verbosity)
