"""Training clips in the order of their shards: few large reads instead of many small ones.

The files are cut into blocks. In each pass over the data the blocks are permuted, and every process
takes an equal run of their windows. Then each window moves towards the end by a random distance:
what a shuffle buffer does, but as arithmetic on indices. The window at a position depends on the
seed, the position and the number of processes alone. So a run resumes anywhere, once it has read
what the buffer held.
"""

import functools
import itertools
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from data_pipeline.sources.source import Blocks, ClipReads, Source
from sat_jax.errors import SatError

SPAN = 0.5
"""Part of the memory over which windows are shuffled; the rest is for reading ahead."""

_MAX_BLOCK = 1 << 24
_BLOCKS_IN_MEMORY = 128


def block_bytes(memory: int) -> int:
    """Returns the size of blocks for so many bytes of memory."""
    return min(_MAX_BLOCK, memory // _BLOCKS_IN_MEMORY)


class Visit(NamedTuple):
    """The windows from a block in some positions of a pass.

    Attributes:
      key: the pass and the block.
      clips: int64 [k], their clips, ascending.
      draws: number of windows.
    """

    key: tuple[int, int]
    clips: np.ndarray
    draws: int


class ShardOrder:
    """Maps positions in a process's run to clips.

    Attributes:
      epoch_size: windows in an epoch, of all processes.
      blocks: of the source.
    """

    def __init__(
        self,
        eligible: np.ndarray,
        blocks: Blocks,
        *,
        seed: int,
        memory: int,
        weights: np.ndarray | None = None,
        draws: int = 0,
        process_index: int = 0,
        process_count: int = 1,
    ) -> None:
        """Prepares an order. A pass has as many windows as there are clips to use.

        Args:
          eligible: int64 [n], the clips to use, ascending.
          blocks: of the source.
          seed: of the order.
          memory: bytes for clips, in each process.
          weights: float64 [n], not all 0: a clip's share of the windows of a pass, rounded at
            random up or down. None uses every clip once.
          draws: windows in an epoch, with weights.
          process_index: this process.
          process_count: processes that share a pass.

        Raises:
          SatError: there are more processes than clips.
        """
        total = len(eligible)
        self._own = slice(*(total * (process_index + i) // process_count for i in (0, 1)))
        self._pass_size = self._own.stop - self._own.start
        if not self._pass_size:
            raise SatError(f"{total} clips are too few for {process_count} processes: start fewer")
        self.epoch_size = total if weights is None else draws
        self.blocks = blocks
        self._eligible, self._seed, self._span = eligible, seed, SPAN * memory
        self._expected = None if weights is None else weights * (total / weights.sum())
        self._pass = functools.lru_cache(maxsize=2)(self._make_pass)

    def clips(self, positions: np.ndarray) -> np.ndarray:
        """Returns the clips at some positions: int64 [b] -> int64 [b]."""
        passes, offsets = np.divmod(positions, self._pass_size)
        found = np.empty(len(positions), np.int64)
        for index in np.unique(passes):
            in_pass = passes == index
            found[in_pass] = self._pass(int(index))[offsets[in_pass]]
        return found

    def visits(self, first: int, last: int | None = None) -> Iterator[Visit]:
        """Yields the visits of some positions, pass by pass, in the order of their first windows.

        Args:
          first: the first position.
          last: one past the last position; None goes on without end.
        """
        index, offset = divmod(first, self._pass_size)
        while last is None or index * self._pass_size < last:
            end = None if last is None else last - index * self._pass_size
            clips, firsts, draws = np.unique(
                self._pass(index)[offset:end], return_index=True, return_counts=True
            )
            block = self.blocks.of_clip[clips]
            starts = np.flatnonzero(np.diff(block, prepend=-1))
            ends, draws = np.append(starts[1:], len(clips)), np.add.reduceat(draws, starts)
            for i in np.argsort(np.minimum.reduceat(firsts, starts)):
                key = (index, int(block[starts[i]]))
                yield Visit(key, clips[starts[i] : ends[i]], int(draws[i]))
            index, offset = index + 1, 0

    def _make_pass(self, index: int) -> np.ndarray:
        """Returns the clips of a pass, in this process: int64 [m]."""
        rng = np.random.default_rng([self._seed, 2, index])
        block = self.blocks.of_clip[self._eligible]
        order = np.argsort(rng.permutation(block[-1] + 1)[block] + rng.random(len(block)))
        if self._expected is not None:
            # Rounded sums: each stretch of the pass has its share within one window.
            sums = np.floor(np.cumsum(self._expected[order]) + rng.random())
            sums = np.minimum(sums, len(order)).astype(np.int64)
            sums[-1] = len(order)  # Against rounding errors of the sum.
            order = np.repeat(order, np.diff(sums, prepend=0))
        delay = self._span * rng.random(len(order))[self._own]
        clips = self._eligible[order[self._own]]
        sizes = self.blocks.clip_bytes[clips]
        sizes[1:][clips[1:] == clips[:-1]] = 0
        return clips[np.argsort(np.cumsum(sizes) + delay)]


def read_ahead(
    order: ShardOrder, *, first: int, rows: int, memory: int, workers: int
) -> Generator[Source]:
    """Reads the clips of coming windows, and drops those that no window needs any more.

    Args:
      order: of the windows.
      first: the first position.
      rows: windows in a batch of this process.
      memory: bytes of clips to hold. Each thread needs a block in addition.
      workers: threads that read.

    Yields:
      For each batch the source, which reads this batch's clips from memory. A clip that can't be
      read raises its `SatError` there.
    """
    coming = order.visits(first)
    following = next(coming)
    held: dict[tuple[int, int], _Held] = {}
    used = 0
    pool = ThreadPoolExecutor(workers, thread_name_prefix="read-ahead")
    try:
        for position in itertools.count(first, rows):
            batch = list(order.visits(position, position + rows))
            missing = {visit.key for visit in batch} - held.keys()
            # At most one pass ahead, if all of it fits.
            while missing or following.key[0] <= batch[0].key[0] + 1:
                num_bytes = int(order.blocks.clip_bytes[following.clips].sum())
                if not missing and used + num_bytes > memory:
                    break
                read: ClipReads = pool.submit(order.blocks.read, following.clips)
                held[following.key] = _Held(read, num_bytes, following.draws)
                used += num_bytes
                missing.discard(following.key)
                following = next(coming)
            yield order.blocks.source(
                {clip: held[visit.key].read for visit in batch for clip in visit.clips.tolist()}
            )
            for visit in batch:
                left = held.pop(visit.key)
                if left.draws > visit.draws:
                    held[visit.key] = left._replace(draws=left.draws - visit.draws)
                else:
                    used -= left.num_bytes
    finally:
        pool.shutdown(cancel_futures=True)


class _Held(NamedTuple):
    """Clips in memory, their size, and how many windows of them are still to come."""

    read: ClipReads
    num_bytes: int
    draws: int
