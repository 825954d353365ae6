"""Tags one recording, and writes all files for it."""

import itertools
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np

from sat_jax.audio import read_blocks, read_live_blocks
from sat_jax.errors import SatError
from sat_jax.events import Level, LevelMeter
from sat_jax.plots.recording import plot_recording
from sat_jax.plots.spectrogram import SpectrogramPool
from sat_jax.runtime.files import explain_write_errors
from sat_jax.runtime.live_input import input_is_ended
from sat_jax.streaming.incremental import SpectrogramStream
from sat_jax.streaming.scored_chunk import ScoredChunk
from sat_jax.tagger import Tagger
from sat_jax.tagging.options import STDIN, Recording, TaggingOptions
from sat_jax.tagging.outputs import TagsPlace
from sat_jax.tagging.progress import ProgressBar
from sat_jax.tagging.result_paths import ResultPaths
from sat_jax.tagging.selections import EventSelection
from sat_jax.tagging.writers import TagWriter, TextStream, save_scores, stack_chunks
from sat_jax.tags import TagSelection

_DRAWING = threading.Lock()
"""Matplotlib draws one picture at a time."""


class OneRecording:
    """Tags one recording, and keeps its chunks for the files of scores and pictures.

    Attributes:
      seconds: how much of it is tagged.
    """

    def __init__(
        self,
        tagger: Tagger,
        recording: Recording,
        options: TaggingOptions,
        selection: TagSelection | EventSelection,
        *,
        progress: ProgressBar,
        warn: Callable[[str], None],
        stop: threading.Event,
    ) -> None:
        """Stores what tagging needs.

        Args:
          tagger: the model.
          recording: what to tag.
          options: the settings.
          selection: chooses what to write.
          progress: follows the recording.
          warn: receives a line if the sound is improbable.
          stop: ends the recording, as Ctrl-C does, from another thread.
        """
        self.seconds = 0.0
        self._tagger = tagger
        self._recording = recording
        self._options = options
        self._selection = selection
        self._progress = progress
        self._warn = warn
        self._stop = stop
        self._chunks: list[ScoredChunk] = []
        self._began: datetime | None = None  # The time of the first sample.
        self._damage: SatError | None = None
        self._levels: list[Level] = []
        frontend = tagger.config.frontend
        if options.plot:
            self._spectrogram = SpectrogramStream(frontend, tagger.programs)
            self._picture = SpectrogramPool(frontend.hop_length / frontend.sample_rate)

    def tag(self, place: TagsPlace, paths: ResultPaths) -> None:
        """Writes each chunk's tags as soon as it is scored; then scores and picture.

        Args:
          place: where the tags go.
          paths: where scores and picture go.

        Raises:
          SatError: no chunk can be tagged, a file cannot be written, or the recording ended in
            damage.
          KeyboardInterrupt: the user stopped it. What was tagged is written.
        """
        if self._options.start_time:
            self._began = self._options.start_time.of(self._recording)
        chunks = self._scored_chunks()
        first = next(chunks, None)  # The name is written only if the file holds audio.
        if first is None and input_is_ended():
            return
        if first is None:
            raise self._damage or SatError(
                f"{self._recording.name}: shorter than one chunk: give a longer recording, or "
                "--pad_last"
            )
        stopped = False
        with place.open() as stream:
            try:
                self._write_tags(stream, place.header, itertools.chain([first], chunks))
            except KeyboardInterrupt:
                stopped = True
            self._save(paths)
            if self._damage:
                raise self._damage
            if stopped and self._recording.name != STDIN:  # The end of live sound is no loss.
                raise KeyboardInterrupt
        if stopped:
            raise KeyboardInterrupt

    def _write_tags(self, stream: TextStream, header: bool, chunks: Iterable[ScoredChunk]) -> None:
        options = self._options
        writer = TagWriter(
            stream,
            format_name=options.format_name,
            selection=self._selection,
            header=header,
        )
        with writer.recording(self._recording.name, self._began) as write:
            for chunk in chunks:
                write(chunk, self._take_levels(chunk.end))
                self.seconds = chunk.end
                if options.scores_out or options.plot:
                    self._chunks.append(chunk)

    def _save(self, paths: ResultPaths) -> None:
        if not self._chunks:
            return
        scores = stack_chunks(self._chunks, len(self._tagger.labels))
        if paths.scores:
            save_scores(paths.scores, scores, self._tagger.labels)
        if paths.plot:
            for frames in self._spectrogram.finish():
                self._picture.add(frames)
            frontend, classes = self._tagger.config.frontend, self._selection.classes
            is_stdin = self._recording.name == STDIN
            with explain_write_errors(paths.plot):
                paths.plot.parent.mkdir(parents=True, exist_ok=True)  # As the recordings' folders.
            with _DRAWING:
                plot_recording(
                    paths.plot,
                    title="standard input" if is_stdin else Path(self._recording.name).name,
                    spectrogram=self._picture,
                    start=scores.start,
                    end=scores.end,
                    probs=scores.probs[:, classes],
                    labels=[self._tagger.labels[index] for index in classes],
                    mel_range=(frontend.f_min, frontend.f_max),
                )

    def _scored_chunks(self) -> Iterator[ScoredChunk]:
        options, blocks = self._options, self._until_damage(self._blocks())
        if options.start_time and not self._began:
            blocks = self._timed(blocks)
        if options.plot:
            blocks = self._add_to_picture(blocks)
        if isinstance(self._selection, EventSelection):
            blocks = self._measure(blocks)
        if options.mode == "clip":
            return self._tagger.clip(blocks, aggregation=options.aggregation)
        if self._recording.is_live:  # Its producer must not wait while programs are compiled.
            self._tagger.prepare(warmup=options.warmup)
        return self._tagger.stream(blocks, warmup=options.warmup)

    def _blocks(self) -> Iterator[np.ndarray]:
        options, rate = self._options, self._tagger.config.frontend.sample_rate
        if self._recording.name != STDIN:
            blocks = read_blocks(
                self._recording.name,
                sample_rate=rate,
                channel=options.channel,
                full_scale=options.full_scale,
                warn=self._warn,
            )
            return self._progress.track(blocks, self._recording.name)
        if sys.stdin is None:
            raise SatError("standard input is closed: pipe sound into it")
        if sys.stdin.isatty():
            raise SatError("standard input is the terminal: pipe sound into it")
        return read_live_blocks(
            sys.stdin.buffer,
            name="standard input",
            rate=options.stdin_rate,
            channels=options.stdin_channels,
            sample_rate=rate,
            channel=options.channel,
            full_scale=options.full_scale,
            warn=self._warn,
        )

    def _timed(self, blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Yields the same blocks, and notes when the first sample arrived."""
        for block in blocks:
            if not self._began:
                seconds = len(block) / self._tagger.config.frontend.sample_rate
                self._began = datetime.now().astimezone() - timedelta(seconds=seconds)
            yield block

    def _until_damage(self, blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Ends the recording where reading fails, and keeps the error for later."""
        try:
            for block in blocks:
                if self._stop.is_set():
                    raise KeyboardInterrupt
                yield block
        except SatError as error:
            # Whoever ends live sound wants what was heard, however little.
            self._damage = None if input_is_ended() else error

    def _measure(self, blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Yields the same blocks, and keeps their levels."""
        meter = LevelMeter(self._tagger.config.frontend.sample_rate)
        for block in blocks:
            self._levels += meter.push(block)
            yield block

    def _take_levels(self, end: float) -> list[Level]:
        """Returns the levels up to a second of the recording, once."""
        taken = [level for level in self._levels if level.end <= end]
        self._levels = self._levels[len(taken) :]
        return taken

    def _add_to_picture(self, blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Yields the same blocks, and adds their frames to the picture."""
        for block in blocks:
            for frames in self._spectrogram.push(block):
                self._picture.add(frames)
            yield block
