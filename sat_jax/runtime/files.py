"""Writing files so that an older one is never harmed, and printing to a pipe."""

import contextlib
import errno
import io
import os
import secrets
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TextIO

from sat_jax.errors import SatError


@contextlib.contextmanager
def naming_file(path: str | Path) -> Iterator[None]:
    """Turns the system's refusal to write `path` into a message for its user."""
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
def own_folder(folder: Path) -> Iterator[None]:
    """Makes a folder, and keeps other programs out: of two, each would undo what the other saves.

    Raises:
      SatError: it can't be made or written to, or another program has it.
    """
    import filelock

    lock = filelock.FileLock(folder / ".lock", timeout=0)
    with naming_file(folder):
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


def check_file(path: str | Path) -> None:
    """Finds out, before hours of work, that a file could not be written.

    Args:
      path: the file; one that exists stays as it is. Its folder is made if need be.

    Raises:
      SatError: it can't be written.
    """
    with naming_file(path):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise SatError(f"cannot write {path}: it is a folder; give the name of a file")
    check_folder(target.parent)


def check_folder(folder: str | Path) -> None:
    """Likewise for files in a folder, which is made if need be.

    Raises:
      SatError: it can't be made or written to.
    """
    with naming_file(folder):
        Path(folder).mkdir(parents=True, exist_ok=True)
        probe = Path(folder) / f".sat-jax-{secrets.token_hex(8)}.tmp"
        probe.touch(exist_ok=False)
        probe.unlink()


def refuse_overwriting(path: str | Path, read: Iterable[str]) -> None:
    """Makes sure that what is written leaves alone what is read.

    Args:
      path: the file to write; it need not exist.
      read: files, or folders of which all files are read; names of neither are passed over.

    Raises:
      SatError: it is one of the files, or lies in one of the folders.
    """
    real = Path(os.path.realpath(path))
    for name in read:
        source = os.path.realpath(name)
        if os.path.exists(source) and (real == Path(source) or _is_part(real, source)):
            raise SatError(f"{path} would overwrite {name}: choose another name")


def _is_part(path: Path, folder: str) -> bool:
    return path.is_file() and path.is_relative_to(folder)


@contextlib.contextmanager
def replacing_file(path: str | Path) -> Iterator[Path]:
    """Writes a file completely or not at all.

    The body writes a temporary file in the same folder, which takes the place of `path` when the
    body succeeds and is removed when it fails. Links are followed; a device or pipe, which nothing
    can take the place of, is written directly.

    Args:
      path: the file to write; one that exists keeps its permissions.

    Yields:
      The path that the body is to write.

    Raises:
      SatError: the file cannot be created there.
    """
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise SatError(f"cannot write {path}: it is a folder; give the name of a file")
    if target.exists() and not target.is_file():
        yield target
        return
    # The name does not build on the target's, which may be as long as a name can be.
    temporary = target.parent / f".sat-jax-{secrets.token_hex(8)}.tmp"
    with naming_file(path):
        temporary.touch(exist_ok=False)
    try:
        yield temporary
        with naming_file(path):
            if target.exists():
                shutil.copymode(target, temporary)
            temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def open_output(path: str | Path | None) -> Iterator[TextIO]:
    r"""Opens the place where tags are printed.

    What an encoding cannot express is written as ``\udc80``.

    Args:
      path: a file, which appears (or is replaced) when the body succeeds; None or "-" for
        standard output.

    Yields:
      A text stream.

    Raises:
      SatError: the file cannot be created or written.
      OSError: standard output cannot be written; BrokenPipeError where its reader went away
        (``| head``).
    """
    is_stdout = path is None or str(path) == "-"
    with _standard_output() if is_stdout else _text_file(str(path)) as stream:
        yield stream


def distinct_paths(folder: str | Path, sources: Sequence[str], *, suffix: str) -> list[Path]:
    """Names one file per source after its stem, no two alike.

    Of several sources with the same stem, the first keeps it and the others are numbered:
    ``a.npz``, ``a_2.npz``. Upper and lower case count as alike, as on many file systems.

    Args:
      folder: where the files will lie.
      sources: paths of recordings; "-" is called ``stdin``.
      suffix: the files' ending with its dot.

    Returns:
      A path per source, in order.
    """
    stems = ["stdin" if source == "-" else Path(source).stem for source in sources]
    taken = {stem.casefold() for stem in stems}
    first = set(taken)
    paths = []
    for stem in stems:
        name, number = stem, 1
        if stem.casefold() in first:
            first.remove(stem.casefold())
        else:
            while name.casefold() in taken:
                number += 1
                name = f"{stem}_{number}"
            taken.add(name.casefold())
        paths.append(Path(folder) / f"{name}{suffix}")
    return paths


@contextlib.contextmanager
def _text_file(path: str) -> Iterator[TextIO]:
    with replacing_file(path) as temporary:
        with naming_file(path):
            stream = temporary.open("w", encoding="utf-8", errors="backslashreplace", newline="")
        try:
            yield stream
        finally:
            with naming_file(path):
                stream.close()


@contextlib.contextmanager
def _standard_output() -> Iterator[TextIO]:
    # A name in the wrong encoding must not end a run that has tagged half the files.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    yield sys.stdout
    sys.stdout.flush()
