"""Pseudo strong labels of a source's clips: the work of `python -m data_pipeline.psl`."""

import contextlib
import dataclasses
import itertools
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from tqdm import tqdm

from data_pipeline.batches.reader import Sound, read_whole_clips
from data_pipeline.psl.files import PslWriter, read_about, read_names, top_classes
from data_pipeline.sources.bounds import SAMPLE_RATE
from data_pipeline.sources.source import Source
from sat_jax.errors import SatError
from sat_jax.runtime.files import naming_file, replacing_file


class Window(NamedTuple):
    """A window: the clip's place in its source, the window's first sample and its end."""

    clip: int
    first: int
    last: int


class Teacher(Protocol):
    """Scores windows: `WindowScorer` (our models) or `YamnetScorer`."""

    def score(
        self, windows: Iterable[tuple[Window, np.ndarray]]
    ) -> Iterator[tuple[Window, np.ndarray]]:
        """Each window's probabilities float32 [y] of its samples float32 [s]; in any order."""


class Columns(NamedTuple):
    """Labelled windows as `PslWriter.write` takes them."""

    names: Sequence[str]
    start: np.ndarray
    end: np.ndarray
    indices: np.ndarray
    probs: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelingOptions:
    """How clips are cut and who labels which of them.

    Attributes:
      window_seconds: length of a window.
      hop_seconds: from the start of a window to that of the next.
      top_k: classes kept of each window.
      shard: (i, n): every n-th clip, beginning with clip i.
      clips_per_part: clips in a file, where the output is a folder.
      workers: threads that read clips ahead.
    """

    window_seconds: float = 4.0
    hop_seconds: float = 2.0
    top_k: int = 10
    shard: tuple[int, int] = (0, 1)
    clips_per_part: int = 1000
    workers: int = 4

    @property
    def window_samples(self) -> int:
        """Samples in a window."""
        return round(self.window_seconds * SAMPLE_RATE)


def cut_windows(num_samples: int, window: int, hop: int) -> list[tuple[int, int]]:
    """First samples and ends of a clip's windows.

    Windows that would reach beyond the clip's end are dropped; a clip shorter than a window is one
    window as it is.
    """
    if num_samples <= window:
        return [(0, num_samples)]
    return [(first, first + window) for first in range(0, num_samples - window + 1, hop)]


def label_clips(
    source: Source,
    teacher: Teacher,
    output: Path,
    options: LabelingOptions,
    *,
    about: Mapping[str, object],
    report: Callable[[SatError], None],
) -> int:
    """Writes pseudo strong labels; see `data_pipeline.psl.files` for the layout.

    Args:
      source: the clips.
      teacher: what scores their windows.
      output: a file, if its name ends in ".parquet": it appears when all is done. Else a folder:
        part after part appears in it, and clips in its parts are not labelled again.
      options: how clips are cut.
      about: JSON-ready data on how the labels are made, kept in the files.
      report: told of each clip that can't be read; the others are labelled all the same.

    Returns:
      How many clips could not be read.

    Raises:
      SatError: the output can't be written, or holds labels that were made otherwise.
    """
    ids = source.clips.ids
    mine = range(options.shard[0], len(ids), options.shard[1])
    done = set() if _is_file(output) else _names_done(output, about)
    todo = [index for index in mine if ids[index] not in done]
    failed = 0
    with (
        tqdm(total=len(mine), initial=len(mine) - len(todo), unit="clip", disable=None) as bar,
        _open_output(output, options.shard, about) as write,
    ):

        def report_above_bar(error: SatError) -> None:
            nonlocal failed
            failed += 1
            with bar.external_write_mode(sys.stderr):
                report(error)

        for first in range(0, len(todo), options.clips_per_part):
            part = todo[first : first + options.clips_per_part]
            sounds = read_whole_clips(source, part, workers=options.workers)
            windows = _cut(sounds, options, on_clip=bar.update, on_error=report_above_bar)
            scored = sorted(teacher.score(windows), key=lambda item: item[0])
            if scored:
                write(_columns(ids, scored, options.top_k))
        if todo and failed == len(todo):
            raise SatError(f"none of the {failed} clips could be read: check the source")
    return failed


def _is_file(output: Path) -> bool:
    return output.suffix == ".parquet"


def _names_done(folder: Path, about: Mapping[str, object]) -> set[str]:
    """Names of the clips in a folder's parts."""
    if folder.exists() and not folder.is_dir():
        raise SatError(
            f"{folder} is a file, and a name without .parquet is that of a folder of parts: name a "
            "folder, or NAME.parquet"
        )
    with naming_file(folder):
        folder.mkdir(parents=True, exist_ok=True)
    names: set[str] = set()
    for path in folder.glob("*.parquet"):
        other = read_about(path)
        for key, value in about.items():
            if other.get(key) != value:
                raise SatError(
                    f"{path} was made with {key}={other.get(key)}, not {value}: choose another "
                    "folder"
                )
        names.update(read_names(path))
    return names


@contextlib.contextmanager
def _open_output(
    output: Path, shard: tuple[int, int], about: Mapping[str, object]
) -> Iterator[Callable[[Columns], None]]:
    """Gives a function that writes windows: all to one file, or each time to a new part."""
    if _is_file(output):
        with _writer(output, about) as writer:
            yield lambda columns: writer.write(*columns)
        return
    names = (f"part-{shard[0]}-of-{shard[1]}-{number:06d}.parquet" for number in itertools.count())
    paths = (output / name for name in names if not (output / name).exists())

    def write_part(columns: Columns) -> None:
        with _writer(next(paths), about) as writer:
            writer.write(*columns)

    yield write_part


@contextlib.contextmanager
def _writer(path: Path, about: Mapping[str, object]) -> Iterator[PslWriter]:
    """Writes a file of labels completely or not at all."""
    with (
        replacing_file(path) as temporary,
        naming_file(path),
        PslWriter(temporary, about) as writer,
    ):
        yield writer


def _cut(
    sounds: Iterable[tuple[int, Sound]],
    options: LabelingOptions,
    *,
    on_clip: Callable[[], object],
    on_error: Callable[[SatError], None],
) -> Iterator[tuple[Window, np.ndarray]]:
    """Windows of clips and their samples."""
    hop = round(options.hop_seconds * SAMPLE_RATE)
    for index, sound in sounds:
        on_clip()
        if isinstance(sound, SatError):
            on_error(sound)
            continue
        for first, last in cut_windows(len(sound), options.window_samples, hop):
            yield Window(index, first, last), sound[first:last]


def _columns(
    ids: Sequence[str], scored: Sequence[tuple[Window, np.ndarray]], top_k: int
) -> Columns:
    names = [ids[window.clip] for window, _ in scored]
    spans = np.array([(window.first, window.last) for window, _ in scored]) / SAMPLE_RATE
    indices, probs = top_classes(np.stack([each for _, each in scored]), top_k)
    return Columns(names, spans[:, 0], spans[:, 1], indices, probs)
