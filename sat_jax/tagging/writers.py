"""Writes tags or events to a text stream, and scores to ``.npz`` files."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from sat_jax.errors import SatError
from sat_jax.events import Level
from sat_jax.runtime.files import atomic_write, explain_write_errors
from sat_jax.streaming.scored_chunk import ScoredChunk
from sat_jax.tagging.formats import FORMATS, check_format
from sat_jax.tagging.selections import EventSelection
from sat_jax.tags import TagSelection


class TextStream(Protocol):
    """What is needed of a text stream."""

    def write(self, text: str, /) -> Any:
        """Writes text."""

    def flush(self) -> Any:
        """Sends off what was written."""


class OutputError(SatError):
    """The output cannot be written, so no further recording can be tagged."""


class TagWriter:
    """Writes tags or events to a stream, and flushes it after each chunk."""

    def __init__(
        self,
        stream: TextStream,
        *,
        format_name: str,
        selection: TagSelection | EventSelection,
        header: bool = True,
    ) -> None:
        """Writes the format's header.

        Args:
          stream: the output.
          format_name: a key of `FORMATS`.
          selection: chooses what to write; of the kind that the format needs.
          header: False if the stream has it already.

        Raises:
          SatError: the format does not exist.
          OutputError: the output cannot be written.
        """
        check_format(format_name, 1)
        self._stream = stream
        self._format = FORMATS[format_name](selection)
        if header:
            self._write(self._format.header)

    @contextlib.contextmanager
    def recording(
        self, name: str, began: datetime | None = None
    ) -> Iterator[Callable[[ScoredChunk, Sequence[Level]], None]]:
        """Writes one recording. It is also completed when the body fails.

        Args:
          name: the recording's name.
          began: the time of its first sample, for formats with dates and times.

        Yields:
          A function that writes the next chunk, given the levels up to its end.

        Raises:
          OutputError: the output cannot be written.
          BrokenPipeError: the reader of standard output went away.
        """
        self._write(self._format.begin(name, began))
        try:
            yield self._write_chunk
        finally:
            self._write(self._format.end())

    def _write_chunk(self, chunk: ScoredChunk, levels: Sequence[Level] = ()) -> None:
        self._write(self._format.chunk(chunk, levels))

    def _write(self, text: str) -> None:
        write_now(self._stream, text)


def write_now(stream: TextStream, text: str) -> None:
    """Writes text and flushes it.

    Raises:
      OutputError: it cannot be written.
      BrokenPipeError: the reader of standard output went away.
    """
    if not text:
        return
    try:
        stream.write(text)
        stream.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(
            f"cannot write the tags: {error.strerror or error}; free some space or choose "
            "another place"
        ) from error


class Scores(NamedTuple):
    """All scores of a recording.

    Attributes:
      start: float64 [k], where each chunk begins, seconds.
      end: float64 [k], where each chunk ends, seconds.
      probs: float32 [k, y], the probability of each class.
      embeddings: float32 [k, d], None without embeddings.
    """

    start: np.ndarray
    end: np.ndarray
    probs: np.ndarray
    embeddings: np.ndarray | None = None


def stack_chunks(chunks: Sequence[ScoredChunk], num_classes: int) -> Scores:
    """Stacks a recording's chunks; there may be none."""
    probs = np.empty((len(chunks), num_classes), np.float32)
    for row, chunk in zip(probs, chunks, strict=True):
        row[:] = chunk.probs
    start = np.array([chunk.start for chunk in chunks], np.float64)
    end = np.array([chunk.end for chunk in chunks], np.float64)
    embeddings = [chunk.embedding for chunk in chunks if chunk.embedding is not None]
    return Scores(start, end, probs, np.stack(embeddings) if embeddings else None)


def save_scores(path: str | Path, scores: Scores, labels: Sequence[str]) -> None:
    """Saves all scores of a recording as an ``.npz`` file; replaces an existing file.

    The file holds ``probs``, ``start``, ``end`` and perhaps ``embeddings`` as in `Scores`, and
    ``labels`` [y] as strings. `numpy.load` reads it without pickle.

    Args:
      path: the file; its folder is created.
      scores: the scores.
      labels: [y] display names.

    Raises:
      SatError: the file cannot be written.
    """
    with explain_write_errors(path):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary, temporary.open("wb") as stream:
        arrays = {name: array for name, array in scores._asdict().items() if array is not None}
        np.savez(stream, **arrays, labels=np.array(labels, np.str_))
