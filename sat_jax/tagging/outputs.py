"""Where tags go while several recordings are tagged at once: one text, or a file for each."""

import collections
import contextlib
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol, TextIO

from sat_jax.errors import SatError
from sat_jax.runtime.files import atomic_write, explain_write_errors, open_output
from sat_jax.tagging.writers import OutputError, TextStream, write_now


class TagsPlace(Protocol):
    """Where the tags of one recording go.

    Attributes:
      header: whether they begin with the format's header.
    """

    header: bool

    def open(self) -> contextlib.AbstractContextManager[TextStream]:
        """Opens the place, once."""


class SharedText:
    """One text of many recordings, in their order.

    The first recording that is not finished writes straight through, so that its tags appear while
    it is heard. The tags of later ones wait.
    """

    def __init__(self, stream: TextIO) -> None:
        """Starts an empty text.

        Args:
          stream: where it goes.
        """
        self._stream = stream
        self._lock = threading.Lock()
        self._parts = collections.deque[_Part]()

    def add(self) -> TagsPlace:
        """Returns the place of the next recording."""
        part = _Part(self._stream, self._lock)
        self._parts.append(part)
        if len(self._parts) == 1:
            part.begin_turn()
        return part

    def end_first(self) -> None:
        """Ends the turn of the first recording.

        Raises:
          OutputError: the waiting text of the next one cannot be written.
        """
        self._parts.popleft()
        if self._parts:
            self._parts[0].begin_turn()

    def end_all(self) -> None:
        """Writes all text that waits.

        Raises:
          OutputError: it cannot be written.
        """
        while self._parts:
            self.end_first()


class _Part:
    """The text of one recording; the methods are those that a writer needs of a stream."""

    header = False

    def __init__(self, stream: TextIO, lock: threading.Lock) -> None:
        self._stream = stream
        self._lock = lock
        self._waiting: list[str] | None = []  # None: it is this recording's turn.

    @contextlib.contextmanager
    def open(self) -> Iterator["_Part"]:
        yield self

    def write(self, text: str) -> None:
        with self._lock:
            if self._waiting is None:
                self._stream.write(text)
            else:
                self._waiting.append(text)

    def flush(self) -> None:
        with self._lock:
            if self._waiting is None:
                self._stream.flush()

    def begin_turn(self) -> None:
        with self._lock:
            waited, self._waiting = self._waiting or [], None
            write_now(self._stream, "".join(waited))


class ResultFile:
    """A file for one recording's tags. It exists only if the recording was tagged to its end.

    What was tagged of a recording that is damaged, or was stopped, goes to ``NAME.partial.SUFFIX``.
    """

    header = True

    def __init__(self, path: Path) -> None:
        """Names the file."""
        self._path = path
        self._partial = path.with_name(f"{path.stem}.partial{path.suffix}")

    @contextlib.contextmanager
    def open(self) -> Iterator[TextIO]:
        """Opens the file. An exception of the body makes it a partial one.

        Raises:
          SatError: it cannot be written.
        """
        with explain_write_errors(self._path):
            self._path.parent.mkdir(parents=True, exist_ok=True)
        with open_output(self._path) as stream:
            try:
                yield stream
            except OutputError:
                raise
            except (SatError, KeyboardInterrupt):
                with atomic_write(self._partial) as partial:
                    stream.flush()
                    shutil.copyfile(stream.name, partial)
                raise
        with explain_write_errors(self._partial):
            self._partial.unlink(missing_ok=True)
