"""A TFDS dataset in blocks of neighbouring records, each fetched by one read."""

from collections.abc import Mapping

import numpy as np

from data_pipeline.sources.source import ClipReads
from data_pipeline.sources.tfds.index import Places, read_bytes
from data_pipeline.sources.tfds.source import TfdsSource


class TfdsBlocks:
    """See `data_pipeline.sources.source.Blocks`.

    Attributes:
      of_clip: int64 [n], the block of each clip, ascending.
      clip_bytes: int64 [n], the size of each clip.
    """

    def __init__(self, source: TfdsSource, max_bytes: int) -> None:
        """Cuts the files of a dataset.

        Args:
          source: n clips.
          max_bytes: size of a block; a block may exceed it by a part of its last record.
        """
        self._source = source
        self.of_clip = np.cumsum(_begins_block(source.places, max_bytes)) - 1
        self.clip_bytes = source.places.end - source.places.start

    def read(self, clips: np.ndarray) -> dict[int, memoryview]:
        """Reads clips of one block.

        Args:
          clips: int64 [k], ascending.

        Returns:
          The record of each clip.

        Raises:
          SatError: the file can't be read.
        """
        places, begin = self._source.places, self._source.places.start[clips[0]]
        path = places.files[places.file_of_clip[clips[0]]]
        data = memoryview(read_bytes(path, int(begin), int(places.end[clips[-1]] - begin)))
        starts, ends = places.start[clips] - begin, places.end[clips] - begin
        spans = zip(clips.tolist(), starts.tolist(), ends.tolist(), strict=True)
        if len(clips) == clips[-1] - clips[0] + 1:
            return {clip: data[start:end] for clip, start, end in spans}
        # Copies, so that the clips between them don't stay in memory.
        return {clip: np.array(data[start:end]).data for clip, start, end in spans}

    def source(self, reads: Mapping[int, ClipReads]) -> TfdsSource:
        """Returns the source, reading these clips from memory."""

        def contents(clip: int, start: int, size: int) -> memoryview:
            first = start - int(self._source.places.start[clip])
            return reads[clip].result()[clip][first : first + size]

        return self._source.reading_from(contents)


def _begins_block(places: Places, max_bytes: int) -> np.ndarray:
    """Returns whether a block begins at each clip: bool [n]."""
    begins = np.ones(len(places.start), bool)
    begins[1:] = (
        (np.diff(places.file_of_clip) != 0)
        # Splits such as "train[1:]+train[:1]" go back in a file.
        | (np.diff(places.start) < 0)
        | (np.diff(places.start // max_bytes) != 0)
    )
    return begins
