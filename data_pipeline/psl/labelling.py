"""Labels the clips of a source with a teacher, window by window."""

import contextlib
import dataclasses
import itertools
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from data_pipeline.batches.reader import Sound, read_whole_clips
from data_pipeline.psl.parquet_files import PslWriter, read_clip_names, read_metadata
from data_pipeline.psl.teacher import Teacher, Window
from data_pipeline.sources.source import SAMPLE_RATE, Source
from sat_jax.errors import SatError
from sat_jax.runtime.files import atomic_write, explain_write_errors


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelingOptions:
    """How clips are cut into windows and shared out.

    Attributes:
      window_seconds: length of a window.
      hop_seconds: time from the start of a window to the start of the next.
      top_k: classes stored per window.
      shard: (i, n): label every n-th clip, starting at clip i.
      clips_per_part: clips per file if the output is a folder.
      workers: threads that read clips ahead.
    """

    window_seconds: float = 4.0
    hop_seconds: float = 2.0
    top_k: int = 10
    shard: tuple[int, int] = (0, 1)
    clips_per_part: int = 1000
    workers: int = 4


def cut_windows(num_samples: int, window: int, hop: int) -> list[tuple[int, int]]:
    """Returns (first sample, end) of each whole window of a clip.

    A clip shorter than one window is a window of its own.
    """
    if num_samples <= window:
        return [(0, num_samples)]
    return [(first, first + window) for first in range(0, num_samples - window + 1, hop)]


def top_classes(probs: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the k strongest classes of each window, strongest first.

    Ties go to the lower index.

    Args:
      probs: float32 [w, y].
      k: number of classes; at most y are returned.

    Returns:
      Indices int32 [w, k] and probabilities float32 [w, k].
    """
    order = np.argsort(-probs, axis=1, kind="stable")[:, :k]
    return order.astype(np.int32), np.take_along_axis(probs, order, axis=1)


def label_clips(
    source: Source,
    teacher: Teacher,
    output: Path,
    options: LabelingOptions,
    *,
    metadata: Mapping[str, object],
    report: Callable[[SatError], None],
) -> int:
    """Writes pseudo strong labels; see `data_pipeline.psl.parquet_files` for the layout.

    Args:
      source: the clips.
      teacher: scores their windows.
      output: a file if the name ends in ".parquet"; it appears when all clips are labelled. Else a
        folder of parts; clips already in its parts are skipped.
      options: how clips are cut.
      metadata: JSON-ready data on how the labels are made, stored in the files.
      report: called with the error of each unreadable clip; the others are still labelled.

    Returns:
      The number of unreadable clips.

    Raises:
      SatError: the output can't be written, or has labels with other metadata.
    """
    ids = source.clips.ids
    shard = range(options.shard[0], len(ids), options.shard[1])
    done = set() if _is_file(output) else _labelled_clips(output, metadata)
    todo = [index for index in shard if ids[index] not in done]
    failed = 0
    with (
        tqdm(total=len(shard), initial=len(shard) - len(todo), unit="clip", disable=None) as bar,
        _open_output(output, options.shard, metadata) as write,
    ):

        def report_above_bar(error: SatError) -> None:
            nonlocal failed
            failed += 1
            with bar.external_write_mode(sys.stderr):
                report(error)

        for first in range(0, len(todo), options.clips_per_part):
            part = todo[first : first + options.clips_per_part]
            sounds = read_whole_clips(source, part, workers=options.workers)
            windows = _windows(sounds, options, on_clip=bar.update, on_error=report_above_bar)
            scored = sorted(teacher.score(windows), key=lambda item: item[0])
            if scored:
                write(*_columns(ids, scored, options.top_k))
        if todo and failed == len(todo):
            raise SatError(f"none of the {failed} clips could be read: check the source")
    return failed


def _is_file(output: Path) -> bool:
    return output.suffix == ".parquet"


def _labelled_clips(folder: Path, metadata: Mapping[str, object]) -> set[str]:
    """Makes the folder, and returns the clips in its parts."""
    if folder.exists() and not folder.is_dir():
        raise SatError(f"{folder} is a file: name a folder, or a file NAME.parquet")
    with explain_write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    names: set[str] = set()
    for path in folder.glob("*.parquet"):
        stored = read_metadata(path)
        for key, value in metadata.items():
            if stored.get(key) != value:
                raise SatError(
                    f"{path} was made with {key}={stored.get(key)}, not {value}: choose another "
                    "folder"
                )
        names |= read_clip_names(path)
    return names


@contextlib.contextmanager
def _open_output(
    output: Path, shard: tuple[int, int], metadata: Mapping[str, object]
) -> Iterator[Callable[..., None]]:
    """Yields `PslWriter.write` of one file, or a function that writes a new part each time."""
    if _is_file(output):
        with _writer(output, metadata) as writer:
            yield writer.write
        return
    names = (f"part-{shard[0]}-of-{shard[1]}-{number:06d}.parquet" for number in itertools.count())
    paths = (output / name for name in names if not (output / name).exists())

    def write_part(*columns: Any) -> None:
        with _writer(next(paths), metadata) as writer:
            writer.write(*columns)

    yield write_part


@contextlib.contextmanager
def _writer(path: Path, metadata: Mapping[str, object]) -> Iterator[PslWriter]:
    """Writes the whole file or nothing."""
    with (
        atomic_write(path) as temporary,
        PslWriter(temporary, metadata) as writer,
    ):
        yield writer


def _windows(
    sounds: Iterable[tuple[int, Sound]],
    options: LabelingOptions,
    *,
    on_clip: Callable[[], object],
    on_error: Callable[[SatError], None],
) -> Iterator[tuple[Window, np.ndarray]]:
    window, hop = (round(s * SAMPLE_RATE) for s in (options.window_seconds, options.hop_seconds))
    for index, sound in sounds:
        on_clip()
        if isinstance(sound, SatError):
            on_error(sound)
            continue
        for first, last in cut_windows(len(sound), window, hop):
            yield Window(index, first, last), sound


def _columns(
    ids: Sequence[str], scored: Sequence[tuple[Window, np.ndarray]], top_k: int
) -> tuple[Sequence[str], np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Returns the arguments of `PslWriter.write`."""
    names = [ids[window.clip] for window, _ in scored]
    bounds = np.array([(window.first, window.last) for window, _ in scored]) / SAMPLE_RATE
    indices, probs = top_classes(np.stack([probs for _, probs in scored]), top_k)
    return names, bounds[:, 0], bounds[:, 1], indices, probs
