"""Tagging a list of recordings for a person: the work behind ``infer.py``."""

import contextlib
import dataclasses
import itertools
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from sat_jax.audio import duration_seconds, read_blocks, read_pcm_blocks
from sat_jax.errors import SatError
from sat_jax.plots.recording import check_plot, plot_scores
from sat_jax.plots.spectrogram import SpectrogramPool
from sat_jax.runtime.files import (
    distinct_paths,
    naming_file,
    open_output,
    refuse_overwriting,
)
from sat_jax.streaming.blocks import SpectrogramStream
from sat_jax.streaming.pieces import Aggregation
from sat_jax.streaming.step import Warmup
from sat_jax.tagger import Mode, Tagger
from sat_jax.tagging.formats import OutputError, TagWriter, check_format
from sat_jax.tagging.score_arrays import save_scores
from sat_jax.tagging.tags import ScoredChunk, TagSelection

STDIN = "-"


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaggingOptions:
    """What to do with each recording, and where the answers go.

    Attributes:
      mode: "stream" answers chunk by chunk, "clip" once for the whole recording.
      aggregation: clip mode, how the answers of its pieces become one.
      warmup: stream mode, what the cache holds at the start.
      k: tags shown for a chunk at most.
      threshold: least probability of a tag shown, one for all or [y] per class; None shows k
        whatever they are.
      format_name: a key of `sat_jax.tagging.formats.FORMATS`.
      output: the file that the tags go to; None is standard output.
      scores_out: folder for all scores, a ``.npz`` file a recording; None saves none.
      plot: the picture; with several recordings each one's name is put behind this one's.
      channel: the channel to hear, counted from 0; None mixes all.
      stdin_rate: samples per second of standard input, Hz.
      stdin_channels: interleaved channels of standard input.
      model: the model's file or folder, which nothing may be written over.
    """

    mode: Mode = "stream"
    aggregation: Aggregation = "mean"
    warmup: Warmup = "silence"
    k: int = 3
    threshold: float | np.ndarray | None = None
    format_name: str = "text"
    output: str | None = None
    scores_out: str | None = None
    plot: str | None = None
    channel: int | None = None
    stdin_rate: int = 16_000
    stdin_channels: int = 1
    model: str | None = None


def check_options(options: TaggingOptions, recordings: Sequence[str]) -> None:
    """Finds what could never work before a model is loaded.

    Args:
      options: what to do.
      recordings: paths, or "-" for standard input.

    Raises:
      SatError: no recordings, standard input twice, a format that can't hold so many, a picture
        that can't be made, or two files of which one would overwrite the other.
    """
    if not recordings:
        raise SatError("no recordings: name audio files, or - for PCM on standard input")
    if recordings.count(STDIN) > 1:
        raise SatError("standard input can be read once: give - only once")
    check_format(options.format_name, len(recordings))
    if options.plot:
        check_plot(options.plot)
    _check_distinct(options, recordings)


def _check_distinct(options: TaggingOptions, recordings: Sequence[str]) -> None:
    """Refuses to write over what is read, or to write two things into one file."""
    taken = {os.path.realpath(name): name for name in recordings if name != STDIN}
    written = [options.output, *(_plot_paths(options.plot, recordings))]
    if options.scores_out:
        written += distinct_paths(options.scores_out, recordings, suffix=".npz")
    for path in written:
        if path is None or str(path) == STDIN:
            continue
        refuse_overwriting(path, [options.model] if options.model else [])
        real = os.path.realpath(path)
        if real in taken:
            raise SatError(f"{path} would overwrite {taken[real]}: choose another name")
        if os.path.isfile(real) or not os.path.exists(real):
            taken[real] = str(path)


def _make_folders(options: TaggingOptions) -> None:
    """Makes sure that results can be written before hours are spent on them."""
    folders = [Path(options.scores_out)] if options.scores_out else []
    folders += [Path(options.plot).parent] if options.plot else []
    for folder in folders:
        with naming_file(folder):
            if folder == Path(options.scores_out or ""):
                folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass


def tag_recordings(
    tagger: Tagger,
    recordings: Sequence[str],
    options: TaggingOptions,
    *,
    report: Callable[[SatError], None],
) -> int:
    """Tags recordings one after another; each starts with a fresh cache.

    Args:
      tagger: the model.
      recordings: paths, or "-" for standard input.
      options: what to do.
      report: told of each recording that failed; the others still get tagged, and so does what
        comes before the damage in one.

    Returns:
      How many failed.

    Raises:
      SatError: the output can't be written.
      KeyboardInterrupt: the user stopped it; all files with what was heard so far are written.
    """
    check_options(options, recordings)
    _make_folders(options)
    selection = TagSelection(labels=tagger.labels, k=options.k, threshold=options.threshold)
    scores = distinct_paths(options.scores_out or ".", recordings, suffix=".npz")
    plots = _plot_paths(options.plot, recordings)
    failed, stopped, heard = 0, False, False
    with contextlib.suppress(_NothingHeard), open_output(options.output) as stream:
        writer = TagWriter(stream, format_name=options.format_name, selection=selection)
        for name, scores_path, plot_path in zip(recordings, scores, plots, strict=True):
            job = _Job(tagger, name, options)
            try:
                stopped = job.tag(writer)
                heard = True
                if options.scores_out and job.chunks:
                    save_scores(scores_path, chunks=job.chunks, labels=tagger.labels)
                if plot_path and job.chunks:
                    job.plot(plot_path)
                if job.damage:
                    raise job.damage
            except OutputError:
                raise
            except SatError as error:
                failed += 1
                report(error)
            if stopped:
                break
        if not heard:
            raise _NothingHeard
    if stopped:
        raise KeyboardInterrupt
    return failed


class _NothingHeard(Exception):
    """There is nothing to write: an older output file stays as it is."""


class _Job:
    """One recording on its way through the tagger, and what is kept of it.

    Attributes:
      chunks: its answers, where they are saved or drawn.
      damage: what made it end early, after all before that was tagged; None if nothing did.
    """

    def __init__(self, tagger: Tagger, name: str, options: TaggingOptions) -> None:
        self.chunks: list[ScoredChunk] = []
        self.damage: SatError | None = None
        self._tagger = tagger
        self._name = name
        self._options = options
        frontend = tagger.config.frontend
        self._spectrogram = SpectrogramStream(frontend, tagger.programs)
        self._picture = SpectrogramPool(frontend.hop_length / frontend.sample_rate)

    def tag(self, writer: TagWriter) -> bool:
        """Scores the recording, writes each chunk's tags at once; True if the user stopped it.

        Raises:
          SatError: there is nothing in it to tag.
        """
        try:
            self._tag(writer)
        except KeyboardInterrupt:
            return True
        return False

    def _tag(self, writer: TagWriter) -> None:
        keep = self._options.scores_out or self._options.plot
        chunks = self._score()
        first = next(chunks, None)  # Its name is printed only when it proved to be audio.
        if first is None:
            raise self.damage or SatError(
                f"{self._name}: too short for one answer, and the rest is not padded"
            )
        with writer.recording(self._name) as write:
            for chunk in itertools.chain([first], chunks):
                write(chunk)
                if keep:
                    self.chunks.append(chunk)

    def plot(self, path: Path) -> None:
        """Draws the recording that `tag` went through."""
        for block in self._spectrogram.finish():
            self._picture.add(block)
        frontend = self._tagger.config.frontend
        plot_scores(
            path,
            title="standard input" if self._name == STDIN else Path(self._name).name,
            spectrogram=self._picture,
            chunks=self.chunks,
            labels=self._tagger.labels,
            mel_range=(frontend.f_min, frontend.f_max),
        )

    def _score(self) -> Iterator[ScoredChunk]:
        options, blocks = self._options, self._up_to_damage(self._blocks())
        if options.plot:
            blocks = self._drawn(blocks)
        if options.mode == "clip":
            return self._tagger.clip(blocks, aggregation=options.aggregation)
        return self._tagger.stream(blocks, warmup=options.warmup)

    def _up_to_damage(self, blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """A damaged recording is tagged like a whole one that ends where the damage begins."""
        try:
            yield from blocks
        except SatError as error:
            self.damage = error

    def _blocks(self) -> Iterator[np.ndarray]:
        options, rate = self._options, self._tagger.config.frontend.sample_rate
        if self._name == STDIN:
            if sys.stdin is None:
                raise SatError("standard input is closed: give it something to read")
            return read_pcm_blocks(
                sys.stdin.buffer,
                rate=options.stdin_rate,
                channels=options.stdin_channels,
                sample_rate=rate,
                channel=options.channel,
            )
        blocks = read_blocks(self._name, sample_rate=rate, channel=options.channel)
        return self._with_progress(blocks, rate)

    def _with_progress(self, blocks: Iterable[np.ndarray], rate: int) -> Iterator[np.ndarray]:
        """Draws a bar on a terminal, unless the tags themselves appear there and show it."""
        options = self._options
        tags_show_it = options.mode == "stream" and not options.output and sys.stdout.isatty()
        hidden = tags_show_it or not sys.stderr.isatty()
        total = None if hidden else duration_seconds(self._name)
        form = "{desc}: {percentage:3.0f}% |{bar}| {n:.0f}/{total:.0f} s [{elapsed}<{remaining}]"
        with tqdm(
            total=total,
            desc=Path(self._name).name,
            disable=hidden,
            bar_format=form if total else None,
            unit="s",
        ) as bar:
            for block in blocks:
                yield block
                bar.update(len(block) / rate)

    def _drawn(self, blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """The same blocks, their frames gathered for the picture."""
        for block in blocks:
            for frames in self._spectrogram.push(block):
                self._picture.add(frames)
            yield block


def _plot_paths(plot: str | None, recordings: Sequence[str]) -> list[Path | None]:
    if plot is None:
        return [None] * len(recordings)
    path = Path(plot)
    if len(recordings) == 1:
        return [path]
    named = distinct_paths(path.parent, recordings, suffix=path.suffix)
    return [each.with_name(f"{path.stem}-{each.name}") for each in named]
