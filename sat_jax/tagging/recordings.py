"""Tags a list of recordings: the work of ``sat-jax tag``."""

import contextlib
import itertools
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from sat_jax.audio import duration_seconds, read_blocks, read_pcm_blocks
from sat_jax.errors import SatError
from sat_jax.plots.recording import plot_recording
from sat_jax.plots.spectrogram import SpectrogramPool
from sat_jax.runtime.files import open_output
from sat_jax.streaming.incremental import SpectrogramStream
from sat_jax.streaming.scored_chunk import ScoredChunk
from sat_jax.tagger import Tagger
from sat_jax.tagging.options import (
    STDIN,
    TaggingOptions,
    check_options,
    make_output_folders,
    plot_paths,
    score_paths,
)
from sat_jax.tagging.tags import TagSelection
from sat_jax.tagging.writers import OutputError, TagWriter, save_scores, stack_chunks


def tag_recordings(
    tagger: Tagger,
    recordings: Sequence[str],
    options: TaggingOptions,
    *,
    report: Callable[[object], None],
) -> int:
    """Tags recordings one after another; each starts with a fresh cache.

    A recording that fails does not stop the others. A damaged one is tagged up to the damage.

    Args:
      tagger: the model.
      recordings: paths, or "-" for standard input.
      options: the settings.
      report: receives the error of each recording that failed, and warnings.

    Returns:
      How many recordings failed.

    Raises:
      SatError: the output cannot be written.
      KeyboardInterrupt: the user stopped the run; all results so far are written.
    """
    check_options(options, recordings)
    make_output_folders(options)
    selection = TagSelection(
        labels=tagger.labels,
        k=options.k,
        threshold=options.threshold,
        only=options.only,
        without=options.without,
    )
    failed, any_tagged, stopped = 0, False, False
    with contextlib.suppress(_NothingTagged), open_output(options.output) as stream:
        writer = TagWriter(stream, format_name=options.format_name, selection=selection)
        for name, scores_path, plot_path in zip(
            recordings,
            score_paths(options, recordings),
            plot_paths(options, recordings),
            strict=True,
        ):
            recording = _Recording(tagger, name, options, selection.classes, report)
            try:
                stopped = recording.tag(writer)
                any_tagged = True
                recording.save(scores_path, plot_path)
            except OutputError:
                raise
            except SatError as error:
                failed += 1
                report(error)
            if stopped:
                break
        if not any_tagged:
            raise _NothingTagged
    if stopped:
        raise KeyboardInterrupt
    return failed


class _NothingTagged(Exception):
    """There is nothing to write, so an existing output file stays as it is."""


class _Recording:
    """Tags one recording, and keeps its chunks for the files of scores and pictures."""

    def __init__(
        self,
        tagger: Tagger,
        name: str,
        options: TaggingOptions,
        classes: np.ndarray,
        warn: Callable[[str], None],
    ) -> None:
        self._tagger = tagger
        self._name = name
        self._options = options
        self._classes = classes  # Indices of those that may be tags.
        self._warn = warn
        self._chunks: list[ScoredChunk] = []
        self._damage: SatError | None = None
        frontend = tagger.config.frontend
        self._spectrogram = SpectrogramStream(frontend, tagger.programs)
        self._picture = SpectrogramPool(frontend.hop_length / frontend.sample_rate)

    def tag(self, writer: TagWriter) -> bool:
        """Writes each chunk's tags as soon as it is scored.

        Returns:
          Whether the user stopped it.

        Raises:
          SatError: no chunk can be tagged.
        """
        try:
            self._tag(writer)
        except KeyboardInterrupt:
            return True
        return False

    def _tag(self, writer: TagWriter) -> None:
        chunks = self._scored_chunks()
        first = next(chunks, None)  # The name is written only if the file holds audio.
        if first is None:
            raise self._damage or SatError(
                f"{self._name}: shorter than one chunk: give a longer recording, or --pad_last"
            )
        keeps_chunks = self._options.scores_out or self._options.plot
        with writer.recording(self._name) as write:
            for chunk in itertools.chain([first], chunks):
                write(chunk)
                if keeps_chunks:
                    self._chunks.append(chunk)

    def save(self, scores_path: Path | None, plot_path: Path | None) -> None:
        """Saves scores and picture, then reports damage.

        Raises:
          SatError: they cannot be written, or the recording ended in damage.
        """
        if self._chunks:
            scores = stack_chunks(self._chunks, len(self._tagger.labels))
            if scores_path:
                save_scores(scores_path, scores, self._tagger.labels)
            if plot_path:
                for frames in self._spectrogram.finish():
                    self._picture.add(frames)
                frontend = self._tagger.config.frontend
                plot_recording(
                    plot_path,
                    title="standard input" if self._name == STDIN else Path(self._name).name,
                    spectrogram=self._picture,
                    start=scores.start,
                    end=scores.end,
                    probs=scores.probs[:, self._classes],
                    labels=[self._tagger.labels[index] for index in self._classes],
                    mel_range=(frontend.f_min, frontend.f_max),
                )
        if self._damage:
            raise self._damage

    def _scored_chunks(self) -> Iterator[ScoredChunk]:
        options, blocks = self._options, self._until_damage(self._blocks())
        if options.plot:
            blocks = self._add_to_picture(blocks)
        if options.mode == "clip":
            return self._tagger.clip(blocks, aggregation=options.aggregation)
        return self._tagger.stream(blocks, warmup=options.warmup)

    def _blocks(self) -> Iterator[np.ndarray]:
        options, rate = self._options, self._tagger.config.frontend.sample_rate
        if self._name != STDIN:
            blocks = read_blocks(
                self._name,
                sample_rate=rate,
                channel=options.channel,
                full_scale=options.full_scale,
                warn=self._warn,
            )
            return _with_progress(blocks, self._name, options, rate)
        if sys.stdin is None:
            raise SatError("standard input is closed: pipe PCM into it")
        return read_pcm_blocks(
            sys.stdin.buffer,
            rate=options.stdin_rate,
            channels=options.stdin_channels,
            sample_rate=rate,
            channel=options.channel,
            full_scale=options.full_scale,
            warn=self._warn,
        )

    def _until_damage(self, blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Ends the recording where reading fails, and keeps the error for later."""
        try:
            yield from blocks
        except SatError as error:
            self._damage = error

    def _add_to_picture(self, blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Yields the same blocks, and adds their frames to the picture."""
        for block in blocks:
            for frames in self._spectrogram.push(block):
                self._picture.add(frames)
            yield block


def _with_progress(
    blocks: Iterable[np.ndarray], name: str, options: TaggingOptions, rate: int
) -> Iterator[np.ndarray]:
    """Yields the same blocks and draws a progress bar on a terminal.

    There is no bar if the tags appear on the terminal while the recording is read.
    """
    shows_tags = options.mode == "stream" and not options.output and sys.stdout.isatty()
    hidden = shows_tags or not sys.stderr.isatty()
    total = None if hidden else duration_seconds(name)
    form = "{desc}: {percentage:3.0f}% |{bar}| {n:.0f}/{total:.0f} s [{elapsed}<{remaining}]"
    with tqdm(
        total=total,
        desc=Path(name).name,
        disable=hidden,
        bar_format=form if total else None,
        unit="s",
    ) as bar:
        for block in blocks:
            yield block
            bar.update(len(block) / rate)
