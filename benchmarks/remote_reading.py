"""Times reading windows at random and in the order of shards, with a delay before each read.

python -m benchmarks.remote_reading --delays 0,50 --workers 4,16,64

Prints Markdown tables and JSON, which --json writes to a file as well. See docs/pods.md.
"""

import argparse
import concurrent.futures
import contextlib
import copy
import functools
import itertools
import json
import tempfile
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from benchmarks.input_pipeline import CLASSES, PACKAGES, prepare
from benchmarks.measuring import machine, markdown_table, warn_if_busy
from data_pipeline.batches.reader import window_batches
from data_pipeline.batches.shards import ShardOrder, block_bytes, read_ahead
from data_pipeline.batches.windows import Planner, WindowConfig
from data_pipeline.sources.source import Blocks, ClipReads, make_table
from sat_jax.runtime.devices import keep_freed_memory

WINDOW_FLOPS = 29.3e9 / 8
"""Operations of a training step of SAT_T_2s per window: docs/pods.md."""

ANY_BYTES = bytes(1 << 25)

CLIP_MB = 0.305  # 10 s.

CHIP_FLOPS = 197e12
"""Of a v5e in bfloat16, by its data sheet."""


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the measurement that the flags select."""
    options = parse_flags(argv)
    keep_freed_memory()  # As sat-jax train does.
    setting = machine(PACKAGES, threads=max(options.workers))
    warn_if_busy(setting)
    report: dict[str, Any] = {"machine": setting, "wanted": wanted(options)}
    with tempfile.TemporaryDirectory() as folder:
        prepare(Path(folder), options.clips, 10.0)
        report["readers"] = measure(Path(folder), options)
    if options.json:
        Path(options.json).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(as_markdown(report), json.dumps(report), sep="\n\n")


def parse_flags(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description="Times reading windows from slow files.")
    add = functools.partial(parser.add_argument, metavar="X")
    add("--delays", type=_numbers, default=[0, 50], help="milliseconds before each read")
    add("--workers", type=_numbers, default=[4, 16, 64], help="threads that read, with commas")
    add("--orders", type=_words, default=["random", "shards"], help="orders, with commas")
    add("--clips", type=int, default=1500, help="clips of 10 s in the made-up dataset")
    add("--copies", type=int, default=16, help="times that the dataset lists each clip")
    add("--window", type=float, default=4.0, help="length of a window, seconds")
    add("--batch", type=int, default=64, help="windows in a batch")
    add("--buffer_mb", type=int, default=2048, help="memory of the order of shards")
    add("--rounds", type=int, default=3, help="measurements of each reader")
    add("--seconds", type=float, default=4.0, help="length of a measurement")
    add("--chips", type=int, default=8, help="chips that a host feeds")
    add("--utilisation", type=float, default=0.1, help="share of the chips' peak in a step")
    add("--json", default=None, help="file for all numbers")
    return parser.parse_args(argv)


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def _words(text: str) -> list[str]:
    return text.split(",")


def wanted(options: argparse.Namespace) -> float:
    """Returns the windows per second that a host's chips use."""
    return options.chips * CHIP_FLOPS * options.utilisation / WINDOW_FLOPS


@contextlib.contextmanager
def delayed(seconds: float, *, is_free: bool = False) -> Iterator[None]:
    """Adds a delay to each read of a dataset's files.

    Args:
      seconds: the delay.
      is_free: whether a read costs nothing else: it returns other bytes, without a copy.
    """
    from data_pipeline.sources.tfds import index

    open_file = index.open_file

    class Slow:
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self._file = open_file(*args, **kwargs)
            self.seek = self._file.seek

        def __enter__(self) -> "Slow":
            return self

        def __exit__(self, *error: object) -> None:
            self._file.close()

        def read(self, size: int) -> bytes | memoryview:
            time.sleep(seconds)
            return memoryview(ANY_BYTES)[:size] if is_free else self._file.read(size)

    with mock.patch.object(index, "open_file", Slow):
        yield


def open_copies(folder: Path, copies: int) -> Any:
    """Opens the dataset as if it had `copies` times as many clips."""
    from data_pipeline.sources.tfds.source import TfdsSource

    source = TfdsSource("audioset", "balanced", folder)
    columns = (np.tile(column, copies) for column in source.places[1:])
    source.places = type(source.places)(source.places.files, *columns)
    size = len(source.places.start)
    source.clips = make_table([str(index) for index in range(size)], [(0,)] * size)
    return source


def measure(folder: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Returns medians over the rounds for each order, delay and number of workers."""
    source = open_copies(folder, options.copies)
    cases = list(itertools.product(options.delays, options.workers, options.orders))
    rounds: dict[Any, list[dict[str, float]]] = {case: [] for case in cases}
    for _ in range(options.rounds):
        for case in cases:
            rounds[case].append(_measure_once(source, *case, options))
    return [
        {"delay_ms": case[0], "workers": case[1], "order": case[2]}
        | {name: float(np.median([one[name] for one in rounds[case]])) for name in rounds[case][0]}
        for case in cases
    ]


def _measure_once(
    source: Any, delay: int, workers: int, order: str, options: argparse.Namespace
) -> dict[str, float]:
    config = WindowConfig(
        batch_size=options.batch,
        window_seconds=options.window,
        num_classes=CLASSES,
        read_order=order,
        buffer_mb=options.buffer_mb,
    )
    planner = Planner(source.clips, config, blocks=_blocks(source, config))
    batches = window_batches(source, planner, config, workers=workers, tf_data=True)
    with delayed(delay / 1000):
        found = _rate(batches(0), workers, options, reads_ahead=order == "shards")
    if order == "shards" and delay:
        with delayed(delay / 1000, is_free=True):
            clips = _clips_only(planner, config, workers)
            alone = _rate(clips, workers, options, reads_ahead=True)
        found["by_delay_alone_per_s"] = alone["windows_per_s"]
    return found


def _blocks(source: Any, config: WindowConfig) -> Blocks | None:
    from data_pipeline.sources.tfds.blocks import TfdsBlocks

    if config.read_order == "random":
        return None
    return TfdsBlocks(source, block_bytes(config.buffer_bytes))


def _clips_only(planner: Planner, config: WindowConfig, workers: int) -> Generator[None]:
    """Reads the blocks of each batch, without making windows of their clips."""
    assert isinstance(planner.order, ShardOrder)
    order = copy.copy(planner.order)
    order.blocks = _Reads(order.blocks)  # type: ignore[assignment]
    all_reads = read_ahead(
        order,
        first=0,
        rows=planner.num_rows,
        memory=config.buffer_bytes,
        workers=workers,
    )
    with contextlib.closing(all_reads):
        for reads in all_reads:
            concurrent.futures.wait(reads)  # type: ignore[arg-type]
            yield


class _Reads:
    """Blocks that offer the reads of a batch, instead of a source of its clips."""

    def __init__(self, blocks: Blocks) -> None:
        self.of_clip, self.clip_bytes, self.read = blocks.of_clip, blocks.clip_bytes, blocks.read

    def source(self, reads: Mapping[int, ClipReads]) -> set[ClipReads]:
        return set(reads.values())


def _rate(
    batches: Iterator[Any], workers: int, options: argparse.Namespace, *, reads_ahead: bool
) -> dict[str, float]:
    """Returns windows per second and microseconds of CPU time per window, in a steady state."""
    # What was read ahead before the measurement must not count.
    ahead = workers + 4
    if reads_ahead:
        ahead += round(options.buffer_mb / CLIP_MB / options.batch)
    for _ in range(ahead):
        next(batches)
    start, cpu, count = time.perf_counter(), time.process_time(), 0
    # Threads that each read a batch end at the same time, so several turns are averaged.
    while count < 3 * workers or time.perf_counter() < start + options.seconds:
        next(batches)
        count += 1
    windows, seconds = count * options.batch, time.perf_counter() - start
    cpu = time.process_time() - cpu
    batches.close()  # type: ignore[attr-defined]
    return {"windows_per_s": windows / seconds, "cpu_us_per_window": 1e6 * cpu / windows}


def as_markdown(report: dict[str, Any]) -> str:
    """Formats a line on the machine and the table."""
    setting = report["machine"]
    load = "" if setting["load_before"] is None else f", load before {setting['load_before']:.1f}"
    columns = ["delay ms", "workers", "order", "windows/s", "CPU µs a window", "by delay alone"]
    rows = [
        [
            str(row["delay_ms"]),
            str(row["workers"]),
            row["order"],
            f"{row['windows_per_s']:.0f}",
            f"{row['cpu_us_per_window']:.0f}",
            f"{row['by_delay_alone_per_s']:.0f}" if "by_delay_alone_per_s" in row else "",
        ]
        for row in report["readers"]
    ]
    return (
        f"{setting['cpu']}, {setting['cores']} cores{load}. "
        f"A host's chips use {report['wanted']:.0f} windows/s.\n\n" + markdown_table(columns, rows)
    )


if __name__ == "__main__":
    main()
