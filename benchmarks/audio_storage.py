"""Compares ways to store clips in TFRecord files: bytes, and time to read a window.

python -m benchmarks.audio_storage --audio FOLDER

Prints a Markdown table and JSON, which --json writes to a file as well. Without --audio it
compares noise with the spectrum of music (1/f). Results: docs/performance.md.
"""

import argparse
import functools
import io
import json
import os
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soundfile
import tensorflow as tf

from benchmarks.measuring import interleave, machine, markdown_table, spread, warn_if_busy

PACKAGES = ("tensorflow-cpu", "soundfile", "numpy")
RATE = 16_000


class Storage(NamedTuple):
    """A way to store a clip.

    Attributes:
      encode: from samples int16 [s] to a feature.
      read: from a serialized example, the window's first sample and its length to its samples.
    """

    encode: Callable[[np.ndarray], tf.train.Feature]
    read: Callable[[bytes, int, int], np.ndarray]


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the measurement that the flags select."""
    options = parse_flags(argv)
    setting = machine(PACKAGES, threads=os.cpu_count() or 1)
    warn_if_busy(setting)
    clips = read_clips(options.audio, options.seconds) if options.audio else noise(options.seconds)
    report = {
        "machine": setting,
        "clips": len(clips),
        "storages": measure(clips, round(options.window * RATE), options.rounds),
    }
    if options.json:
        Path(options.json).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(as_markdown(report), json.dumps(report), sep="\n\n")


def parse_flags(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description="Compares ways to store clips.")
    add = functools.partial(parser.add_argument, metavar="X")
    add("--audio", default=None, help="folder of audio files, of which the first 100 are used")
    add("--seconds", type=float, default=10.0, help="longest clip")
    add("--window", type=float, default=2.0, help="length of a window, seconds")
    add("--rounds", type=int, default=9, help="blocks of reads of each way")
    add("--json", default=None, help="file for all numbers")
    return parser.parse_args(argv)


def read_clips(folder: str, seconds: float) -> list[np.ndarray]:
    """Reads up to 100 clips of a folder, int16 [s]."""
    from data_pipeline.audioset.reading import read_samples

    paths = sorted(path for path in Path(folder).rglob("*") if path.is_file())[:100]
    return [read_samples(path)[: round(seconds * RATE)] for path in paths]


def noise(seconds: float, count: int = 20) -> list[np.ndarray]:
    """Makes clips of 1/f noise, int16 [s], a tenth of full scale."""
    rng = np.random.default_rng(0)
    length = round(seconds * RATE)
    spectra = np.fft.rfft(rng.standard_normal((count, length)))
    spectra /= np.sqrt(np.maximum(1, np.arange(spectra.shape[1])))
    sounds = np.fft.irfft(spectra, length)
    return list((3277 * sounds / sounds.std()).clip(-32_768, 32_767).astype(np.int16))


def storages() -> dict[str, Storage]:
    """Returns the compared ways to store a clip, by name."""
    raw = _graph(tf.io.FixedLenFeature([], tf.string), _raw_window)
    packed = _graph(tf.io.FixedLenFeature([], tf.string), _zlib_window)
    integers = _graph(tf.io.FixedLenSequenceFeature([], tf.int64, True), _integer_window)
    return {
        "16-bit samples as bytes": Storage(lambda x: _bytes(x.tobytes()), raw),
        "the same, zlib": Storage(lambda x: _bytes(zlib.compress(x.tobytes())), packed),
        "list of integers (TFDS's default)": Storage(
            lambda x: tf.train.Feature(int64_list=tf.train.Int64List(value=x.tolist())), integers
        ),
        "FLAC": Storage(lambda x: _bytes(_flac(x)), _flac_window),
    }


def _graph(feature: Any, cut: Callable[..., tf.Tensor]) -> Callable[..., np.ndarray]:
    @tf.function(reduce_retracing=True)
    def window(example: tf.Tensor, first: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
        value = tf.io.parse_single_example(example, {"audio": feature})["audio"]
        return cut(value, first, count)

    return lambda example, *bounds: window(tf.constant(example), *map(tf.constant, bounds)).numpy()


def _raw_window(value: tf.Tensor, first: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    return tf.io.decode_raw(tf.strings.substr(value, 2 * first, 2 * count), tf.int16)


def _zlib_window(value: tf.Tensor, first: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    return _raw_window(tf.io.decode_compressed(value, "ZLIB"), first, count)


def _integer_window(value: tf.Tensor, first: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    return tf.cast(value[first : first + count], tf.int16)


def _flac_window(example: bytes, first: int, count: int) -> np.ndarray:
    # TensorFlow has no decoder for FLAC.
    value = tf.train.Example.FromString(example).features.feature["audio"].bytes_list.value[0]
    with soundfile.SoundFile(io.BytesIO(value)) as file:
        file.seek(first)
        return file.read(count, dtype="int16")


def _bytes(value: bytes) -> tf.train.Feature:
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))


def _flac(samples: np.ndarray) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, RATE, format="FLAC", subtype="PCM_16")
    return file.getvalue()


def measure(clips: Sequence[np.ndarray], window: int, rounds: int) -> dict[str, Any]:
    """Returns bytes per second of audio and milliseconds per window of each way.

    Raises:
      RuntimeError: a way changes the samples.
    """
    ways = storages()
    examples = {
        name: [_example(way.encode(clip)).SerializeToString() for clip in clips]
        for name, way in ways.items()
    }
    rng = np.random.default_rng(1)
    places = [int(rng.integers(max(1, len(clip) - window + 1))) for clip in clips]
    for name, way in ways.items():
        for example, clip, first in zip(examples[name], clips, places, strict=True):
            expected = clip[first : first + window]
            if not np.array_equal(way.read(example, first, len(expected)), expected):
                raise RuntimeError(f"{name} changes the samples")

    def read_all(name: str) -> None:
        for example, clip, first in zip(examples[name], clips, places, strict=True):
            ways[name].read(example, first, min(window, len(clip) - first))

    times = interleave({name: functools.partial(read_all, name) for name in ways}, rounds=rounds)
    seconds = sum(map(len, clips)) / RATE
    return {
        name: {
            "kb_per_second": sum(map(len, examples[name])) / seconds / 1e3,
            "ms_per_window": spread(times[name])["median_ms"] / len(clips),
        }
        for name in ways
    }


def _example(feature: tf.train.Feature) -> tf.train.Example:
    return tf.train.Example(features=tf.train.Features(feature={"audio": feature}))


def as_markdown(report: Mapping[str, Any]) -> str:
    """Formats a line on the machine, and a table of the ways."""
    setting = report["machine"]
    versions = ", ".join(f"{name} {setting[name]}" for name in PACKAGES)
    columns = ["stored as", "kB a second", "ms a window"]
    rows = [
        [name, f"{row['kb_per_second']:.1f}", f"{row['ms_per_window']:.2f}"]
        for name, row in report["storages"].items()
    ]
    return (
        f"{setting['cpu']}, {setting['cores']} cores; Python {setting['python']}, {versions}; "
        f"{report['clips']} clips\n\n" + markdown_table(columns, rows)
    )


if __name__ == "__main__":
    main()
