"""Batches of random windows from labelled recordings in a folder (floor 0).

Batch i is a function of the seed and of i alone, so a run that stopped anywhere goes on with the
very batches it would have seen.
"""

import collections
import dataclasses
import functools
import hashlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Literal, NotRequired, TypedDict, get_args

import numpy as np

from data_pipeline.clips import Clip
from sat_jax.audio import duration_seconds, read_blocks
from sat_jax.errors import SatError

Fill = Literal["wrap", "zeros"]


class WindowBatch(TypedDict):
    """Labelled windows.

    Attributes:
      waveform: float32 [b, s] in [-1, 1].
      target: float32 [b, y], 1 where a class is heard, else 0.
      clips: the recordings' files, b of them.
    """

    waveform: np.ndarray
    target: np.ndarray
    clips: NotRequired[Sequence[str]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class WindowConfig:
    """How batches are made of recordings.

    Attributes:
      batch_size: windows in a batch.
      window_seconds: length of a window; it lies anywhere in its recording.
      num_classes: classes of the model.
      seed: of the order of the recordings and of the windows' places.
      fill: how a shorter recording becomes a window: "wrap" repeats it, "zeros" appends silence.
      sample_rate: samples per second.
    """

    batch_size: int
    window_seconds: float
    num_classes: int
    seed: int = 0
    fill: Fill = "wrap"
    sample_rate: int = 16_000

    def __post_init__(self) -> None:
        """Refuses values out of range."""
        if self.batch_size < 1:
            raise SatError(f"data.batch_size={self.batch_size} is under 1")
        if not self.window_seconds >= 0.16:
            raise SatError(f"data.window_seconds={self.window_seconds} is under 0.16")
        if self.fill not in get_args(Fill):
            raise SatError(f"data.fill={self.fill!r} is none of {', '.join(get_args(Fill))}")

    @property
    def num_samples(self) -> int:
        """Samples in a window."""
        return round(self.window_seconds * self.sample_rate)


def folder_batches(
    clips: Sequence[Clip], config: WindowConfig, *, workers: int = 4
) -> Callable[[int], Iterator[WindowBatch]]:
    """An endless source of batches, see `make_batch`.

    Args:
      clips: at least one.
      config: how batches are made.
      workers: threads that read ahead, one batch each.

    Returns:
      From the index of the first batch wanted to an iterator over the batches from there on; it
      raises `SatError` where a recording can't be read.
    """

    def batches(start: int) -> Iterator[WindowBatch]:
        pool = ThreadPoolExecutor(workers, thread_name_prefix="read-clips")
        try:
            ahead: collections.deque[Future[WindowBatch]] = collections.deque()
            for index in itertools.count(start):
                ahead.append(pool.submit(make_batch, clips, config, index))
                if len(ahead) > workers:
                    yield ahead.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)

    return batches


def make_batch(clips: Sequence[Clip], config: WindowConfig, index: int) -> WindowBatch:
    """Batch `index`: the next recordings of a new order each epoch, a random window of each.

    Epochs are joined without a gap: a batch may hold the end of one and the start of the next.

    Raises:
      SatError: a recording can't be read.
    """
    positions = range(index * config.batch_size, (index + 1) * config.batch_size)
    chosen = [clips[_clip_at(config.seed, position, len(clips))] for position in positions]
    windows = [
        read_window(
            clip.path,
            config.num_samples,
            place=np.random.default_rng([config.seed, 1, position]).random(),
            fill=config.fill,
            sample_rate=config.sample_rate,
        )
        for clip, position in zip(chosen, positions, strict=True)
    ]
    target = np.zeros((config.batch_size, config.num_classes), np.float32)
    for row, clip in zip(target, chosen, strict=True):
        row[list(clip.labels)] = 1.0
    names = [str(clip.path) for clip in chosen]
    return {"waveform": np.stack(windows), "target": target, "clips": names}


def read_window(
    path: Path, num_samples: int, *, place: float, fill: Fill = "wrap", sample_rate: int = 16_000
) -> np.ndarray:
    """Reads a window of a recording, and no more of it than lies before the window's end.

    Args:
      path: the file.
      num_samples: length of the window.
      place: where it lies, in [0, 1): 0 at the recording's start, towards 1 at its end.
      fill: see `WindowConfig`.
      sample_rate: samples per second of the result.

    Returns:
      float32 [num_samples].

    Raises:
      SatError: the file can't be read.
    """
    seconds = duration_seconds(path)
    if seconds is None:
        sound = _read(path, sample_rate)
        first = _first_sample(len(sound), num_samples, place)
    else:
        first = _first_sample(round(seconds * sample_rate), num_samples, place)
        sound = _read(path, sample_rate, until=first + num_samples)
        # A header may promise a little more than there is.
        first = min(first, max(0, len(sound) - num_samples))
    window = sound[first : first + num_samples]
    if fill == "wrap":
        return np.resize(window, num_samples)
    return np.pad(window, (0, num_samples - len(window)))


def fingerprint(clips: Sequence[Clip]) -> str:
    """A short text that changes when files or labels do, wherever the folder lies."""
    digest = hashlib.sha256()
    for clip in clips:
        digest.update(f"{clip.path.name} {clip.labels}\n".encode())
    return digest.hexdigest()[:16]


def _first_sample(length: int, num_samples: int, place: float) -> int:
    return int(place * max(1, length - num_samples + 1))


def _read(path: Path, sample_rate: int, until: int | None = None) -> np.ndarray:
    """The recording as float32 [s], at least its first `until` samples if it has so many."""
    parts, heard = [], 0
    for block in read_blocks(path, sample_rate=sample_rate):
        parts.append(block)
        heard += len(block)
        if until is not None and heard >= until:
            break
    return np.concatenate(parts)


def _clip_at(seed: int, position: int, num_clips: int) -> int:
    epoch, place = divmod(position, num_clips)
    return int(_order(seed, epoch, num_clips)[place])


@functools.lru_cache(maxsize=4)
def _order(seed: int, epoch: int, num_clips: int) -> np.ndarray:
    return np.random.default_rng([seed, 0, epoch]).permutation(num_clips)
