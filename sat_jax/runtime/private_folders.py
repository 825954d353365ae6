"""Who may write files that are run as programs."""

import os
import stat
import warnings
from collections.abc import Callable
from pathlib import Path

from sat_jax.errors import SatError

Warn = Callable[[str], None]
"""Receives a warning of one line."""


def warn_in_python(text: str) -> None:
    """Issues a warning."""
    warnings.warn(text, stacklevel=3)


def is_private(folder: Path, warn: Warn) -> bool:
    """Returns whether `check_private` passes; `warn` receives the reason if not."""
    try:
        check_private(folder)
    except SatError as error:
        warn(str(error))
        return False
    return True


def check_private(path: Path) -> None:
    """Checks that only this user, or the administrator, may write a file or folder.

    A path that does not exist passes, and so does everything on Windows, where rights are not
    modes.

    Raises:
      SatError: others may write it, or it belongs to another user.
    """
    if not hasattr(os, "geteuid"):
        return
    try:
        status = path.stat()
    except OSError:
        return
    if status.st_uid not in (0, os.geteuid()):
        problem = "belongs to another user: set SAT_JAX_CACHE to a folder of your own"
    elif status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        problem = f"can be written by others: run chmod -R go-w {path}, or delete it"
    else:
        return
    raise SatError(f"compiled programs are not kept, because {path} {problem}")
