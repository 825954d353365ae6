"""Tagging a list of recordings for a person: the work behind ``infer.py``."""

import contextlib
import itertools
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from sat_jax.audio import duration_seconds, read_blocks, read_pcm_blocks
from sat_jax.errors import SatError
from sat_jax.plots.recording import plot_scores
from sat_jax.plots.spectrogram import SpectrogramPool
from sat_jax.runtime.files import open_output
from sat_jax.streaming.blocks import SpectrogramStream
from sat_jax.tagger import Tagger
from sat_jax.tagging.formats import OutputError, TagWriter
from sat_jax.tagging.options import (
    STDIN,
    TaggingOptions,
    check_options,
    make_output_folders,
    plot_paths,
    score_paths,
)
from sat_jax.tagging.score_arrays import save_scores
from sat_jax.tagging.tags import ScoredChunk, TagSelection


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
    make_output_folders(options)
    selection = TagSelection(labels=tagger.labels, k=options.k, threshold=options.threshold)
    scores, plots = score_paths(options, recordings), plot_paths(options, recordings)
    failed, stopped, heard = 0, False, False
    with contextlib.suppress(_NothingHeard), open_output(options.output) as stream:
        writer = TagWriter(stream, format_name=options.format_name, selection=selection)
        for name, scores_path, plot_path in zip(recordings, scores, plots, strict=True):
            job = _Job(tagger, name, options)
            try:
                stopped = job.tag(writer)
                heard = True
                if scores_path and job.chunks:
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
