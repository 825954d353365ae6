"""Compares the classes of windows in the order of shards with those of windows drawn at random.

python -m benchmarks.shard_balance --memory_gb 2,16 --processes 1,8

The clips are made up: as many as AudioSet has, with class frequencies that fall as steeply. No
file is read. Prints a Markdown table; see docs/pods.md.
"""

import argparse
import functools
import itertools
from collections.abc import Sequence

import numpy as np

from benchmarks.measuring import markdown_table
from data_pipeline.batches.sampling import ClipOrder, balanced_weights
from data_pipeline.batches.shards import ShardOrder, block_bytes
from data_pipeline.sources.source import ClipTable

CLIP_BYTES = 320_000
CLASSES, MOST, FEWEST = 527, 1_000_000, 60
EPOCH = 200_000
COLUMNS = ["order", "processes", "GB", "batch", f"{EPOCH} windows", "pass", "clips of a batch"]


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the comparison that the flags select."""
    options = parse_flags(argv)
    clips = make_clips(options.clips)
    weights, size = balanced_weights(clips), options.clips // options.batch * options.batch
    order = ClipOrder(np.arange(options.clips), seed=0, weights=weights, draws=options.clips)
    rows = [["random", "", "", *compare(order.clips(np.arange(size)), clips, weights, options)]]
    for memory, processes in itertools.product(options.memory_gb, options.processes):
        drawn = draw_from_shards(weights, memory << 30, processes, options.batch)
        cells = compare(drawn, clips, weights, options)
        rows.append(["shards", str(processes), str(memory), *cells])
    print(markdown_table(COLUMNS, rows))


def parse_flags(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description="Compares the balance of two orders of clips.")
    add = functools.partial(parser.add_argument, metavar="X")
    add("--clips", type=int, default=1_900_000, help="clips of 10 s")
    add("--memory_gb", type=_numbers, default=[2, 16], help="buffers, with commas")
    add("--processes", type=_numbers, default=[1, 8], help="numbers of processes, with commas")
    add("--batch", type=int, default=2048, help="windows in a batch of all processes")
    return parser.parse_args(argv)


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def make_clips(total: int) -> ClipTable:
    """Returns clips whose class k is as frequent as (k + 1) ** -1.4, like AudioSet's."""
    rng = np.random.default_rng(0)
    share = np.maximum(FEWEST, MOST * np.arange(1, CLASSES + 1) ** -1.4) / 1_900_000
    counts = np.ceil(share * total).astype(int)
    clip = np.concatenate([rng.choice(total, count, replace=False) for count in counts])
    label = np.repeat(np.arange(CLASSES, dtype=np.int32), counts)
    order = np.lexsort((label, clip))
    starts = np.searchsorted(clip[order], np.arange(total + 1))
    return ClipTable(range(total), starts, label[order])  # type: ignore[arg-type]


class UniformBlocks:
    """Blocks of clips of 10 s: only where they lie."""

    def __init__(self, clips: int, memory: int) -> None:
        """Cuts the clips for so many bytes of memory."""
        self.of_clip = np.arange(clips) // (block_bytes(memory) // CLIP_BYTES)
        self.clip_bytes = np.full(clips, CLIP_BYTES)


def draw_from_shards(weights: np.ndarray, memory: int, processes: int, batch: int) -> np.ndarray:
    """Returns the clips of a pass, batch by batch, of all processes together."""
    blocks = UniformBlocks(len(weights), memory)
    steps = len(weights) // batch
    parts = [
        ShardOrder(
            np.arange(len(weights)),
            blocks,  # type: ignore[arg-type]
            seed=0,
            memory=memory,
            weights=weights,
            process_index=index,
            process_count=processes,
        ).clips(np.arange(steps * (batch // processes)))
        for index in range(processes)
    ]
    return np.concatenate([part.reshape(steps, -1) for part in parts], axis=1).ravel()


def compare(
    drawn: np.ndarray, clips: ClipTable, weights: np.ndarray, options: argparse.Namespace
) -> list[str]:
    """Returns distances of the classes drawn from those wanted, and the share of other clips.

    The distance is the total variation of class frequencies: 0 is equal, 1 is disjoint. Batches and
    stretches of an epoch are from the middle of the pass.
    """
    sizes = np.diff(clips.label_starts)
    wanted = _frequencies(clips, np.repeat(weights, sizes))

    def distance(part: np.ndarray) -> float:
        times = np.bincount(part, minlength=len(sizes))
        return float(0.5 * np.abs(_frequencies(clips, np.repeat(times, sizes)) - wanted).sum())

    middle = drawn[len(drawn) // 2 // options.batch * options.batch :]
    batches = middle[: 20 * options.batch].reshape(20, -1)
    return [
        f"{np.mean([distance(one) for one in batches]):.3f}",
        f"{distance(middle[:EPOCH]):.3f}",
        f"{distance(drawn):.4f}",
        f"{np.mean([len(np.unique(one)) / options.batch for one in batches]):.0%}",
    ]


def _frequencies(clips: ClipTable, weights: np.ndarray) -> np.ndarray:
    counts = np.bincount(clips.label_indices, weights, CLASSES)
    return counts / counts.sum()


if __name__ == "__main__":
    main()
