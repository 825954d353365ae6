"""Compares the speed of reading windows with a PyTorch DataLoader on HDF5.

python -m benchmarks.input_pipeline --workers 1,2

Prints a Markdown table and JSON, which --json writes to a file as well. See docs/performance.md.
"""

import argparse
import functools
import itertools
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import soundfile
import torch
from torch.utils.data import DataLoader, Dataset

from benchmarks.measuring import PAUSE, Times, machine, markdown_table, ratio, warn_if_busy
from data_pipeline.batches.windows import Plan, Planner, WindowConfig
from data_pipeline.sources.source import ClipTable, make_table

PACKAGES = ("tensorflow-cpu", "tensorflow-datasets", "torch", "h5py", "numpy")
RATE = 16_000
CLASSES = 527
OURS, REMOTE, TORCH = "tf.data", "tf.data by gfile", "DataLoader and h5py"

Batches = Iterator[np.ndarray]


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the measurement that the flags select."""
    options = parse_flags(argv)
    setting = machine(PACKAGES, threads=max(options.workers))
    warn_if_busy(setting)
    report: dict[str, Any] = {"machine": setting, "readers": []}
    with tempfile.TemporaryDirectory() as folder:
        prepare(Path(folder), options.clips, options.seconds)
        for workers in options.workers:
            report["readers"].append(measure(Path(folder), workers, options))
    if options.json:
        Path(options.json).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(as_markdown(report), json.dumps(report), sep="\n\n")


def parse_flags(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description="Times reading windows beside PyTorch and HDF5.")
    add = functools.partial(parser.add_argument, metavar="X")
    add("--workers", type=_numbers, default=[1, 2], help="workers of each reader, with commas")
    add("--clips", type=int, default=500, help="clips of the made-up dataset")
    add("--seconds", type=float, default=10.0, help="length of a clip")
    add("--window", type=float, default=2.0, help="length of a window, seconds")
    add("--batch", type=int, default=32, help="windows in a batch")
    add("--rounds", type=int, default=9, help="blocks of batches of each reader")
    add("--block", type=int, default=60, help="batches in a block")
    add("--json", default=None, help="file for all numbers")
    return parser.parse_args(argv)


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def prepare(folder: Path, clips: int, seconds: float) -> None:
    """Writes the same clips of noise as a TFDS dataset and in the published HDF5 layout."""
    from data_pipeline.audioset.prepare import prepare_audioset

    rng = np.random.default_rng(0)
    (folder / "audio").mkdir()
    rows = []
    with h5py.File(folder / "clips.h5", "w") as file:
        for index in range(clips):
            sound = rng.integers(-3000, 3000, round(seconds * RATE), np.int16)
            name = f"{index:011d}_30.000_40.000"
            file[f"{name}.wav"] = sound
            soundfile.write(folder / "audio" / f"{name}.wav", sound, RATE)
            rows.append(f'{index:011d}, 30.000, 40.000, "/m/09x0r"\n')
    table = folder / "segments.csv"
    table.write_text("".join(rows), encoding="utf-8")
    prepare_audioset(
        audio=str(folder / "audio"),
        tables={"balanced": str(table)},
        data_dir=str(folder),
        progress=False,
    )


def measure(folder: Path, workers: int, options: argparse.Namespace) -> dict[str, Any]:
    """Returns windows per second of all readers.

    Raises:
      RuntimeError: the readers' windows differ.
    """
    config = WindowConfig(
        batch_size=options.batch, window_seconds=options.window, num_classes=CLASSES
    )
    readers = {
        TORCH: torch_batches(folder / "clips.h5", config, workers),
        OURS: tf_batches(folder, config, workers),
        REMOTE: tf_batches(folder, config, workers, scheme="file://"),
    }
    first = {name: next(batches) for name, batches in readers.items()}
    if any(not np.array_equal(batch, first[OURS]) for batch in first.values()):
        raise RuntimeError("the readers' windows differ")
    # Batches that were read ahead before a block don't count: as many are left at its end.
    ahead = 2 * workers + 4
    times: Times = {name: [] for name in readers}
    for index in range(options.rounds):
        names = list(readers)
        for name in names[index % len(names) :] + names[: index % len(names)]:
            time.sleep(PAUSE)
            call = functools.partial(next, readers[name])
            for _ in range(ahead):
                call()
            times[name].append(_block(call, options.block))
    return {
        "workers": workers,
        **{name: options.batch / float(np.median(times[name])) for name in readers},
        "ratio": ratio(times[TORCH], times[OURS]),
        "ratio_remote": ratio(times[TORCH], times[REMOTE]),
    }


def _block(call: Callable[[], Any], batches: int) -> np.ndarray:
    """Returns seconds per batch, averaged: a single batch may have been ready before."""
    start = time.perf_counter()
    for _ in range(batches):
        call()
    return np.array([(time.perf_counter() - start) / batches])


def tf_batches(folder: Path, config: WindowConfig, workers: int, *, scheme: str = "") -> Batches:
    """Batches of our reader; with the scheme "file://" through TensorFlow, like remote files."""
    from data_pipeline.batches.tf_data import read_by_tf_data
    from data_pipeline.sources.tfds.source import TfdsSource

    source = TfdsSource("audioset", "balanced", folder)
    source.places = source.places._replace(files=[scheme + path for path in source.places.files])
    planner = Planner(_sorted_clips(source.clips), config)
    order = np.argsort(np.asarray(source.clips.ids))

    def plans(step: int) -> Plan:
        plan = planner(step)
        return plan._replace(clip=order[plan.clip])

    sources = (source for _ in itertools.count())
    windows = read_by_tf_data(sources, plans, config, 0, workers=workers)
    return (batch for _, batch in windows)


def _sorted_clips(clips: ClipTable) -> ClipTable:
    """Sorts the clips, so that all readers plan the same windows."""
    return make_table(sorted(clips.ids), [[0]] * len(clips.ids))


def torch_batches(path: Path, config: WindowConfig, workers: int) -> Batches:
    """Batches of a DataLoader, whose processes keep the file open and read windows alone."""
    dataset = Hdf5Windows(path, config.num_samples)
    planner = Planner(make_table(dataset.keys, [[0]] * len(dataset.keys)), config)
    plans = map(planner, itertools.count())
    loader = DataLoader(
        dataset,
        batch_sampler=_Rows(plans),
        num_workers=workers,
        multiprocessing_context="spawn",
    )
    return (waveform.numpy() for waveform, _ in loader)


class _Rows:
    """Rows of plans, as indices for `Hdf5Windows`."""

    def __init__(self, plans: Iterator[Any]) -> None:
        self._plans = plans

    def __iter__(self) -> Iterator[list[tuple[int, float]]]:
        for plan in self._plans:
            yield list(zip(plan.clip.tolist(), plan.place.tolist(), strict=True))


class Hdf5Windows(Dataset):
    """Windows of the clips in an HDF5 file, with targets."""

    def __init__(self, path: Path, num_samples: int) -> None:
        """Reads the names."""
        self._path, self._num_samples = path, num_samples
        self._file: h5py.File | None = None
        with h5py.File(path, "r") as file:
            self.keys = sorted(file)

    def __getitem__(self, row: tuple[int, float]) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns the window at a place in a clip, and its target."""
        if self._file is None:
            self._file = h5py.File(self._path, "r")
        index, place = row
        samples = self._file[self.keys[index]]
        first = int(place * max(1, len(samples) - self._num_samples + 1))
        window = samples[first : first + self._num_samples].astype(np.float32)
        target = torch.zeros(CLASSES)
        target[0] = 1.0
        return torch.from_numpy(window * np.float32(1 / 32_768)), target


def as_markdown(report: dict[str, Any]) -> str:
    """Formats a line on the machine, and a table of the readers."""
    setting = report["machine"]
    load = "" if setting["load_before"] is None else f", load before {setting['load_before']:.1f}"
    versions = ", ".join(f"{name} {setting[name]}" for name in PACKAGES)
    columns = ["workers", *(f"{name}, windows/s" for name in (OURS, REMOTE, TORCH))]
    columns += ["speed (quartiles)", "by gfile (quartiles)"]
    return (
        f"{setting['cpu']}, {setting['cores']} cores{load}; Python {setting['python']}, "
        f"{versions}\n\n" + markdown_table(columns, [_row(row) for row in report["readers"]])
    )


def _row(row: dict[str, Any]) -> list[str]:
    ratios = [row["ratio"], row["ratio_remote"]]
    return [
        str(row["workers"]),
        *(f"{row[name]:.0f}" for name in (OURS, REMOTE, TORCH)),
        *(f"{r['median']:.2f} ({r['quartile_1']:.2f}-{r['quartile_3']:.2f})" for r in ratios),
    ]


if __name__ == "__main__":
    main()
