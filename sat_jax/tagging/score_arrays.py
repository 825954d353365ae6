"""All scores of a recording as arrays in a file."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sat_jax.runtime.files import atomic_write, explain_write_errors
from sat_jax.tagging.tags import ScoredChunk


def save_scores(path: str | Path, *, chunks: Sequence[ScoredChunk], labels: Sequence[str]) -> None:
    """Saves every score of a recording as an ``.npz`` file; a file of that name is replaced.

    It holds ``probs`` [k, y] float32, ``start`` and ``end`` [k] float64 in seconds, and ``labels``
    [y] strings; `numpy.load` reads it without pickle.

    Args:
      path: the file; its folder is created if need be.
      chunks: the recording's chunks in order, perhaps none.
      labels: [y] display names.

    Raises:
      SatError: the file cannot be written.
    """
    # Filled row by row: three hours of short chunks would be too much to hold twice.
    probs = np.empty((len(chunks), len(labels)), np.float32)
    for row, chunk in zip(probs, chunks, strict=True):
        row[:] = chunk.probs
    start = np.array([chunk.start for chunk in chunks], np.float64)
    end = np.array([chunk.end for chunk in chunks], np.float64)
    names = np.array(labels, np.str_)
    with explain_write_errors(path):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as temporary, temporary.open("wb") as stream:
            np.savez(stream, probs=probs, start=start, end=end, labels=names)
