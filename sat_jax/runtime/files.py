"""Where cached files lie, and writing files so that an older one is never damaged."""

import contextlib
import errno
import io
import os
import secrets
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from sat_jax.errors import SatError


def cache_dir() -> Path:
    """Returns the folder for downloaded weights, compiled programs and the like.

    It is ``SAT_JAX_CACHE`` if that is set, else the system's usual cache folder.

    Raises:
      SatError: this user has no home folder.
    """
    given = os.environ.get("SAT_JAX_CACHE")
    try:
        if given:
            return Path(given).expanduser()
        import platformdirs

        usual = platformdirs.user_cache_path("sat_jax")
        if usual.is_absolute():  # Without a home folder "~" stays in it.
            return usual
    except RuntimeError:  # There is no home folder of the name after "~".
        pass
    raise SatError(f"no home folder for the cache{f' {given}' if given else ''}: set SAT_JAX_CACHE")


@contextlib.contextmanager
def explain_write_errors(path: str | Path) -> Iterator[None]:
    """Turns an `OSError` of the body into a `SatError` that names `path`.

    `BrokenPipeError` passes: it is about standard output.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        advice = (
            "free some space, or choose another place"
            if is_full
            else "choose another place, or create the folder and allow writing there"
        )
        raise SatError(f"cannot write {path}: {error.strerror or error}; {advice}") from error


@contextlib.contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Creates a folder and locks it, so that two runs never write to it at once.

    Raises:
      SatError: it cannot be written, or another run has locked it.
    """
    import filelock

    lock = filelock.FileLock(folder / ".lock", timeout=0)
    with explain_write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire()
        except filelock.Timeout as error:
            raise SatError(
                f"{folder} is in use by another run: wait for it, or choose another folder"
            ) from error
    try:
        yield
    finally:
        lock.release()


def check_readable_file(path: str | Path) -> None:
    """Checks, before slow imports, that a file can be read.

    Raises:
      SatError: it cannot.
    """
    try:
        with Path(path).open("rb"):
            pass
    except OSError as error:
        raise SatError(f"cannot read {path}: {error.strerror or error}") from error


def check_writable_file(path: str | Path) -> None:
    """Checks, before hours of work, that a file can be written; creates its folder.

    Raises:
      SatError: it cannot be written.
    """
    with explain_write_errors(path):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    check_writable_folder(_target(path).parent)


def check_writable_folder(folder: str | Path) -> None:
    """Checks that files can be written to a folder; creates it.

    Raises:
      SatError: they cannot.
    """
    with explain_write_errors(folder):
        Path(folder).mkdir(parents=True, exist_ok=True)
        probe = Path(folder) / f".sat-jax-{secrets.token_hex(8)}.tmp"
        probe.touch(exist_ok=False)
        probe.unlink()


def refuse_overwriting(path: str | Path, *sources: str) -> None:
    """Checks that an output does not overwrite an input.

    Args:
      path: the file to write; it need not exist.
      *sources: input files, and folders whose files are all inputs. Model names and other names
        that are no paths are ignored.

    Raises:
      SatError: `path` is one of the files, or an existing file in one of the folders.
    """
    real = Path(os.path.realpath(path))
    for name in sources:
        source = Path(os.path.realpath(name))
        is_inside = os.path.isfile(real) and real.is_relative_to(source)
        if os.path.exists(source) and (real == source or is_inside):
            raise SatError(f"{path} would overwrite {name}: choose another output path")


def _target(path: str | Path) -> Path:
    """Follows links; refuses a folder, and a name that is too long."""
    target = Path(os.path.realpath(path))
    with explain_write_errors(path), contextlib.suppress(FileNotFoundError):
        target.stat()
    if os.path.isdir(target):
        raise SatError(f"cannot write {path}: it is a folder; give the name of a file")
    return target


@contextlib.contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Writes a file completely or not at all.

    The body writes a temporary file in the same folder. If the body succeeds, that file replaces
    `path`; if it fails, that file is removed. Links are followed. A device or pipe is written
    directly.

    Args:
      path: the file to write. An existing file keeps its permissions.

    Yields:
      The path that the body writes.

    Raises:
      SatError: the file cannot be written; any `OSError` of the body counts as that.
    """
    with _temporary_file(path) as temporary, explain_write_errors(path):
        yield temporary


@contextlib.contextmanager
def _temporary_file(path: str | Path) -> Iterator[Path]:
    target = _target(path)
    if os.path.exists(target) and not os.path.isfile(target):
        yield target
        return
    # Its name has a fixed length: the target's may be as long as the file system allows.
    temporary = target.parent / f".sat-jax-{secrets.token_hex(8)}.tmp"
    with explain_write_errors(path):
        temporary.touch(exist_ok=False)
    try:
        yield temporary
        with explain_write_errors(path):
            if os.path.exists(target):
                shutil.copymode(target, temporary)
            temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def open_output(path: str | Path | None) -> Iterator[TextIO]:
    r"""Opens a text output: a file, or standard output.

    Characters that the encoding lacks are written as ``\udc80``.

    Args:
      path: a file, which is created or replaced when the body succeeds; None or "-" for standard
        output.

    Yields:
      A text stream. Errors of writing to it are the caller's.

    Raises:
      SatError: the file cannot be created or written.
      OSError: standard output cannot be written; `BrokenPipeError` if its reader went away.
    """
    if path is not None and str(path) != "-":
        with _temporary_file(path) as temporary, _open_text(temporary, path) as stream:
            yield stream
        return
    # A file name in another encoding must not end a run that has tagged half of the files.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    yield sys.stdout
    sys.stdout.flush()


@contextlib.contextmanager
def _open_text(temporary: Path, path: str | Path) -> Iterator[TextIO]:
    with explain_write_errors(path):
        stream = temporary.open("w", encoding="utf-8", errors="backslashreplace", newline="")
    try:
        yield stream
    finally:
        with explain_write_errors(path):
            stream.close()
