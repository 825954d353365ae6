"""Damaged files of a run: set aside, never deleted."""

import itertools
import sys
from pathlib import Path

from sat_jax.errors import one_line
from sat_jax.runtime.files import explain_write_errors


def set_aside(path: Path, reason: object, consequence: str = "") -> None:
    """Renames a damaged file or folder, and says so in a line on standard error.

    Args:
      path: the file or folder. Its new name ends in ".damaged." and a number.
      reason: how it is damaged.
      consequence: end of the line.

    Raises:
      SatError: it can't be renamed.
    """
    names = (f"{path.name}.damaged.{number}" for number in itertools.count(1))
    new = next(name for name in names if not path.with_name(name).exists())
    with explain_write_errors(path):
        path.rename(path.with_name(new))
    line = f"{path} is damaged ({reason}): set aside as {new}{consequence}"
    print(one_line(line), file=sys.stderr, flush=True)
