"""Tags many files at once, in threads."""

import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from sat_jax.errors import SatError
from sat_jax.runtime.threads import map_ahead
from sat_jax.streaming.scored_chunk import ScoredChunk


class TaggedFile(NamedTuple):
    """The result of one of many files.

    Attributes:
      path: the file, as it was given.
      chunks: its chunks, up to the damage if it is damaged.
      error: why it could not be tagged to its end, or None.
    """

    path: str | Path
    chunks: list[ScoredChunk]
    error: SatError | None


def tag_many(
    tag_file: Callable[[str | Path], Iterator[ScoredChunk]],
    paths: Iterable[str | Path],
    *,
    jobs: int,
) -> Iterator[TaggedFile]:
    """Tags files in threads; yields the results in the order of the files.

    Args:
      tag_file: tags one file.
      paths: the files; may be endless.
      jobs: files tagged at once. Twice as many results wait for the caller at most.
    """
    stop = threading.Event()

    def tag(path: str | Path) -> TaggedFile:
        chunks = []
        try:
            for chunk in tag_file(path):
                chunks.append(chunk)
                if stop.is_set():
                    break
        except SatError as error:
            return TaggedFile(path, chunks, error)
        return TaggedFile(path, chunks, None)

    return map_ahead(tag, paths, workers=jobs, ahead=2 * jobs, stop=stop)
