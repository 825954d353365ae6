"""Telling whether recordings have changed since they were last read."""

import functools
import hashlib
import os

import numpy as np

from data_pipeline.sources.source import Source


def clip_versions(source: Source) -> np.ndarray:
    """Numbers that change when the files of clips do.

    Args:
      source: of n clips; none of them is read.

    Returns:
      int64 [n], made of place, size and time of last change of each clip's file. Of files that are
      missing, or not on a file system, only the place counts.
    """
    # A file may hold very many clips.
    version = functools.cache(_version)
    paths = (source.path_of(index) for index in range(len(source.clips.ids)))
    return np.fromiter(map(version, paths), np.int64, len(source.clips.ids))


def _version(path: str) -> int:
    place = os.path.realpath(path)
    try:
        found = os.stat(place)
        state = (found.st_size, found.st_mtime_ns)
    except OSError:
        state = (-1, -1)
    digest = hashlib.blake2b(f"{place}\n{state}".encode(errors="surrogateescape"), digest_size=8)
    return int.from_bytes(digest.digest(), "little", signed=True)
