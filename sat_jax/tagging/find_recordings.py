"""Finds the recordings that files, folders and patterns stand for."""

import glob
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from sat_jax.audio.suffixes import is_audio_name
from sat_jax.errors import SatError
from sat_jax.tagging.options import STDIN, Recording

_MAGIC = re.compile(r"[*?[]")


def find_recordings(
    arguments: Sequence[str], *, recursive: bool = False, report: Callable[[SatError], None]
) -> tuple[list[Recording], int]:
    """Finds the recordings of a command's arguments.

    A folder stands for its audio files, known by their suffixes. Hidden files, folders that were
    read before, and pipes in folders are left out. A pattern stands for the files and folders that
    it matches; if it does not end in a suffix, for audio files only.

    Args:
      arguments: files, folders, "-", or patterns with ``*``, ``?``, ``[a-z]``, and ``**`` for
        folders of any depth.
      recursive: whether the folders in folders are searched, too.
      report: receives an error for each argument that stands for no recording, and for each folder
        that cannot be read.

    Returns:
      The recordings in the order of the arguments, each once; inside of a folder its files by name,
      then its folders by name. And the number of errors.
    """
    search = _Search(recursive, report)
    found: dict[str, Recording] = {}
    for argument in arguments:
        for recording in search.find(argument):
            found.setdefault(recording.name, recording)
    return list(found.values()), search.failed


class _Search:
    def __init__(self, recursive: bool, report: Callable[[SatError], None]) -> None:
        self.failed = 0
        self._recursive = recursive
        self._report = report

    def find(self, argument: str) -> list[Recording]:
        """Returns what an argument stands for; reports it if that is nothing."""
        failed = self.failed
        if argument == STDIN or os.path.isfile(argument):
            return [Recording.named(argument)]
        if os.path.isdir(argument):
            found, advice = list(self._in_folder(argument)), "give another folder"
            if not self._recursive:
                advice += ", or --recursive to look into the folders in it"
            reason = "no audio files in this folder"
        elif glob.has_magic(argument) and not os.path.lexists(argument):
            found, advice = list(self._matching(argument)), "check the pattern"
            reason = "no audio file has such a name"
        else:
            return self._check_exists(argument)
        if not found and self.failed == failed:
            self._fail(f"{argument}: {reason}: {advice}")
        return found

    def _check_exists(self, name: str) -> list[Recording]:
        """Returns a named pipe or the like; reports a name that does not exist."""
        try:
            os.stat(name)  # Opening a named pipe would wait for its writer.
        except OSError as error:
            self._fail(f"{name}: cannot be opened: {error.strerror}")
            return []
        return [Recording.named(name, is_live=True)]

    def _in_folder(self, folder: str, place: str = "") -> Iterator[Recording]:
        """Yields a folder's audio files: first its own by name, then those of its folders."""
        waiting = [(folder, place)]
        read = set()
        while waiting:
            folder, place = waiting.pop()
            try:
                status = os.stat(folder)
                if (status.st_dev, status.st_ino) in read:  # Links may lead round in a circle.
                    continue
                read.add((status.st_dev, status.st_ino))
                with os.scandir(folder) as scanned:
                    entries = sorted(scanned, key=lambda entry: entry.name)
            except OSError as error:
                self._fail(f"{folder}: cannot be read: {error.strerror}")
                continue
            folders = []
            for entry in entries:
                inside = os.path.join(place, entry.name)
                if entry.name.startswith("."):  # On macOS ._a.wav holds properties of a.wav.
                    continue
                if _is_folder(entry):
                    folders.append((entry.path, inside))
                elif is_audio_name(entry.name) and _may_be_file(entry):
                    yield Recording(entry.path, inside)
            if self._recursive:
                waiting += reversed(folders)

    def _matching(self, pattern: str) -> Iterator[Recording]:
        """Yields the files that match a pattern, and those in the folders that match."""
        fixed = os.path.dirname(_MAGIC.split(pattern, maxsplit=1)[0])
        # Python knows ** only between slashes.
        rest = re.sub(r"(?<![^/])\*\*+(?=[^/])", "**/*", pattern[len(fixed) :].lstrip("/"))
        rest = re.sub(r"(?<=[^/*])\*+|\*\*\*+", "*", rest)
        suffix = os.path.splitext(rest)[1]
        is_hidden = rest.startswith(".") or "/." in rest
        names_any = suffix != "" and not glob.has_magic(suffix)
        try:
            paths = sorted(Path(fixed).glob(rest))
        except OSError as error:  # A name of over 255 bytes.
            self._fail(f"{pattern}: {error.strerror}: check the pattern")
            return
        for path in paths:
            place = path.relative_to(fixed)
            if any(part.startswith(".") for part in place.parts) and not is_hidden:
                continue
            if path.is_dir():
                yield from self._in_folder(str(path), os.path.join(*place.parts, ""))
            elif names_any or is_audio_name(path.name):
                yield Recording(str(path), str(place))

    def _fail(self, message: str) -> None:
        self.failed += 1
        self._report(SatError(message))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # A link to itself.
        return False


def _may_be_file(entry: os.DirEntry[str]) -> bool:
    """Returns False for pipes and devices. A link that leads nowhere is reported when opened."""
    try:
        return entry.is_file() or not os.path.exists(entry)
    except OSError:
        return True
