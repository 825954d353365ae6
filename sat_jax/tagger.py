"""The tagger: sounds in, probabilities of classes out.

    tagger = Tagger.load("SAT_XS_2s")
    for chunk in tagger.tag_file("street.wav"):
        print(chunk.start, [tag.label for tag in chunk.tags(3)])

or, for a stream that never ends:

    state = tagger.init()
    probs, state = tagger.step(samples, state)
"""

import copy
import dataclasses
import functools
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Self, get_args

import jax.numpy as jnp
import numpy as np

from sat_jax.audio import read_blocks
from sat_jax.audio.mono import MAX_AMPLITUDE, SoundInfo, mono_blocks
from sat_jax.config import (
    PATCH_SIZE,
    Aggregation,
    Dtype,
    FramingKind,
    Mode,
    Warmup,
    check_choice,
)
from sat_jax.errors import SatError
from sat_jax.find_model import find_checkpoint
from sat_jax.runtime.devices import usable_cores
from sat_jax.runtime.jax_modes import standard_modes
from sat_jax.stream_runner import StreamRunner, as_floats, is_whole
from sat_jax.streaming.incremental import SpectrogramStream, score_in_pieces
from sat_jax.streaming.many_files import TaggedFile, tag_many
from sat_jax.streaming.model import StreamingModel
from sat_jax.streaming.pieces import aggregate, to_probs
from sat_jax.streaming.scored_chunk import ScoredChunk, check_finite

_MAX_CHANNELS = 64  # More of them than samples are an array of [channels, samples].


class Tagger(StreamRunner):
    """A model with its weights, ready to tag sounds.

    `init`, `step`, `scan` and `finish` keep streams going; the other methods take whole sounds.
    """

    @classmethod
    def load(
        cls,
        name_or_path: str | Path,
        *,
        chunk_seconds: float | None = None,
        framing: FramingKind = "chunk",
        pad_last: bool | None = None,
        dtype: Dtype | None = None,
        embeddings: bool = False,
        keep_programs: bool = True,
    ) -> Self:
        """Loads a model.

        Args:
          name_or_path: see `sat_jax.find_model.find_checkpoint`.
          chunk_seconds: see `Tagger`.
          framing: see `Tagger`.
          pad_last: see `Tagger`.
          dtype: see `Tagger`.
          embeddings: see `Tagger`.
          keep_programs: see `Tagger`.

        Raises:
          SatError: there is no such model, or it cannot be downloaded, read or used.
        """
        return cls(
            find_checkpoint(name_or_path),
            chunk_seconds=chunk_seconds,
            framing=framing,
            pad_last=pad_last,
            dtype=dtype,
            embeddings=embeddings,
            keep_programs=keep_programs,
        )

    def stream(
        self, blocks: Iterable[np.ndarray], *, warmup: Warmup = "silence"
    ) -> Iterator[ScoredChunk]:
        """Stream mode: scores each chunk as soon as it is complete, the cache carried along.

        Args:
          blocks: float32 [s] each, of any length, mono at the model's rate.
          warmup: see `init`.

        Yields:
          The chunks in order; the last may be shorter.

        Raises:
          SatError: a block has more than one axis or no floating-point numbers, or probabilities
            are not finite.
        """
        framing, rate = self.framing, self.config.frontend.sample_rate
        if warmup not in self._fresh:  # The warm-up takes as long as a chunk.
            self._fresh[warmup] = self.init(1, warmup)
        state, start = self._fresh[warmup], 0
        for block in _mono(blocks):
            for first in range(0, len(block), framing.hop):
                outputs, state = self._step(block[first : first + framing.hop], state)
                if state.ready[0]:
                    yield self._scored(start, start + framing.hop, outputs, rate)
                    start += framing.hop
        end = start + int(state.filled[0]) - framing.margin
        for outputs in self._finish(state):
            # The last frame of a whole chunk reaches beyond it, to both sides of the very end.
            yield self._scored(start, min(start + framing.hop, end), outputs, rate)
            start += framing.hop

    def clip(
        self, blocks: Iterable[np.ndarray], *, aggregation: Aggregation = "mean"
    ) -> Iterator[ScoredChunk]:
        """Clip mode: one spectrogram and one set of probabilities for the whole recording.

        Memory grows by 26 kB a second, the size of the spectrogram.

        Args:
          blocks: float32 [s] each, of any length, mono at the model's rate.
          aggregation: how the outputs of several pieces become one.

        Yields:
          One chunk, or none if the recording has no samples.

        Raises:
          SatError: a block has more than one axis or no floating-point numbers, or probabilities
            are not finite.
        """
        check_choice("aggregation", aggregation, get_args(Aggregation))
        config = self.config
        spectrogram = SpectrogramStream(config.frontend, self.programs)
        num_samples, parts = 0, []
        for block in _mono(blocks):
            num_samples += len(block)
            parts += spectrogram.push(block)
        missing = PATCH_SIZE * config.frontend.hop_length - num_samples
        if num_samples and missing > 0:  # Silence follows what is shorter than a patch.
            parts += spectrogram.push(np.zeros(missing, np.float32))
        parts += spectrogram.finish()
        if parts:
            with standard_modes():
                scores = score_in_pieces(
                    config, parts, lambda *piece: self._run(StreamingModel.clip_piece, *piece)
                )
                outputs = np.asarray(to_probs(config, aggregate(jnp.asarray(scores), aggregation)))
            yield self._scored(0, num_samples, outputs, config.frontend.sample_rate)

    def tag(
        self,
        samples: np.ndarray,
        rate: int = 16_000,
        *,
        mode: Mode = "stream",
        aggregation: Aggregation = "mean",
        warmup: Warmup = "silence",
        channel: int | None = None,
    ) -> Iterator[ScoredChunk]:
        """Tags a sound in memory, of any rate and channel count.

        Args:
          samples: floats in [-1, 1], [s] or [s, channels].
          rate: their sample rate, Hz.
          mode: see `tag_file`.
          aggregation: see `tag_file`.
          warmup: see `tag_file`.
          channel: see `tag_file`.

        Yields:
          Chunks in order.

        Raises:
          SatError: the array has another shape or no floats, a sample is NaN or Inf, or the rate or
            channel is out of range.
        """
        sound = as_floats(samples).astype(np.float32, copy=False)
        if sound.ndim not in (1, 2):
            raise SatError(
                f"samples have shape {list(sound.shape)}: give [samples] or [samples, channels]"
            )
        sound = sound[:, None] if sound.ndim == 1 else sound
        if sound.shape[1] > max(_MAX_CHANNELS, len(sound)):
            raise SatError(
                f"samples have shape {list(sound.shape)}, which is {sound.shape[1]} channels: give "
                "[samples, channels]"
            )
        info = SoundInfo(name="samples", rate=rate, channels=sound.shape[1])
        wanted = self.config.frontend.sample_rate
        blocks = mono_blocks(
            [sound] if len(sound) else [], info, sample_rate=wanted, channel=channel
        )
        return self._tag_blocks(blocks, mode=mode, aggregation=aggregation, warmup=warmup)

    def embed(self, sound: Any, rate: int = 16_000) -> np.ndarray:
        """Returns the pooled features of each chunk, before the classifier.

        Args:
          sound: a file, or samples as for `tag`.
          rate: of samples, Hz.

        Returns:
          float32 [k, d], in the order of the chunks of `tag`.

        Raises:
          SatError: see `tag` and `tag_file`.
        """
        is_file = isinstance(sound, (str, os.PathLike))
        embedder = self._embedder
        chunks = embedder.tag_file(sound) if is_file else embedder.tag(sound, rate)
        embeddings = [chunk.embedding for chunk in chunks]
        return np.array(embeddings, np.float32).reshape(-1, self.config.width)

    @functools.cached_property
    def _embedder(self) -> "Tagger":
        """The same tagger with embeddings."""
        if self.streams.embeds:
            return self
        embedder = copy.copy(self)
        embedder.streams = dataclasses.replace(self.streams, embeds=True)
        embedder._running = {}
        return embedder

    def tag_file(
        self,
        path: str | Path,
        *,
        mode: Mode = "stream",
        aggregation: Aggregation = "mean",
        warmup: Warmup = "silence",
        channel: int | None = None,
        full_scale: float = 1.0,
    ) -> Iterator[ScoredChunk]:
        """Tags an audio file of any format, rate, channel count and length.

        Args:
          path: the file.
          mode: "stream" scores chunk by chunk, "clip" the whole file at once.
          aggregation: clip mode only, see `clip`.
          warmup: stream mode only, see `stream`.
          channel: the channel to use, counted from 0; None mixes all.
          full_scale: the number that all samples are divided by, such as 32768 for 16-bit numbers
            that were stored as floats.

        Yields:
          Chunks in order.

        Raises:
          SatError: the file cannot be read or is damaged; chunks before that were yielded.
        """
        if not isinstance(path, (str, os.PathLike)):
            raise SatError(f"{path!r} is not a path: give a file's name")
        rate = self.config.frontend.sample_rate
        blocks = read_blocks(path, sample_rate=rate, channel=channel, full_scale=full_scale)
        return self._tag_blocks(blocks, mode=mode, aggregation=aggregation, warmup=warmup)

    def _tag_blocks(
        self, blocks: Iterable[np.ndarray], *, mode: Mode, aggregation: Aggregation, warmup: Warmup
    ) -> Iterator[ScoredChunk]:
        check_choice("mode", mode, get_args(Mode))
        if mode == "clip":
            return self.clip(blocks, aggregation=aggregation)
        return self.stream(blocks, warmup=warmup)

    def tag_files(
        self,
        paths: Iterable[str | Path],
        *,
        jobs: int | None = None,
        mode: Mode = "stream",
        aggregation: Aggregation = "mean",
        warmup: Warmup = "silence",
        channel: int | None = None,
        full_scale: float = 1.0,
    ) -> Iterator[TaggedFile]:
        """Tags many audio files, several at once, each as a stream of its own.

        The probabilities are those of `tag_file`, to the last bit. At most ``3 * jobs`` files are
        in memory, as probabilities.

        Args:
          paths: the files; may be endless.
          jobs: files tagged at once; None for as many as there are cores.
          mode: see `tag_file`.
          aggregation: see `tag_file`.
          warmup: see `tag_file`.
          channel: see `tag_file`.
          full_scale: see `tag_file`.

        Yields:
          The results in the order of the files. A file that fails does not stop the others.

        Raises:
          SatError: `paths` is a single path, or `jobs`, `mode`, `aggregation` or `warmup` is none
            that exists.
        """
        if isinstance(paths, (str, os.PathLike)):
            raise SatError(
                f"{os.fspath(paths)!r} is one path: give a list of paths, or use tag_file"
            )
        if jobs is not None and (not is_whole(jobs) or jobs < 1):
            raise SatError(f"jobs={jobs!r}: give a whole number of files at once, at least 1")
        check_choice("mode", mode, get_args(Mode))
        check_choice("aggregation", aggregation, get_args(Aggregation))
        check_choice("warmup", warmup, get_args(Warmup))
        tag_file = functools.partial(
            self.tag_file,
            mode=mode,
            aggregation=aggregation,
            warmup=warmup,
            channel=channel,
            full_scale=full_scale,
        )
        return tag_many(tag_file, paths, jobs=jobs or usable_cores())

    def _scored(self, start: int, end: int, outputs: np.ndarray, rate: int) -> ScoredChunk:
        """Makes a chunk of one stream's outputs [1, y] or [1, y + d]."""
        (checked,), num_classes = check_finite(outputs), self.config.num_classes
        return ScoredChunk(
            start=start / rate,
            end=end / rate,
            probs=checked[:num_classes],
            labels=self.labels,
            embedding=checked[num_classes:] if self.streams.embeds else None,
        )


def _mono(blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    for given in blocks:
        block = as_floats(given)
        if block.ndim != 1:
            raise SatError(
                f"a block of samples has shape {list(block.shape)}: give [samples], one channel"
            )
        if not (np.abs(block) < MAX_AMPLITUDE).all():  # False for NaN too.
            raise SatError(
                f"a block of samples has NaN or values beyond {MAX_AMPLITUDE:g}: repair it or "
                "leave it out"
            )
        yield block
