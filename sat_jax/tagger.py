"""The tagger: sounds in, probabilities of classes out.

    tagger = Tagger.load("SAT_XS_2s")
    for chunk in tagger.tag_file("street.wav"):
        print(chunk.start, tagger.labels[chunk.probs.argmax()])

or, for a stream that never ends:

    state = tagger.init()
    probs, state = tagger.step(samples, state)
"""

import dataclasses
import functools
import os
from collections.abc import Iterable, Iterator
from numbers import Integral
from pathlib import Path
from typing import Any, Self, get_args

import jax
import jax.numpy as jnp
import numpy as np

from sat_jax.audio import read_blocks
from sat_jax.audio.mono import MAX_AMPLITUDE
from sat_jax.config import (
    PATCH_SIZE,
    Aggregation,
    Dtype,
    FramingKind,
    Mode,
    ModelConfig,
    Warmup,
    check_choice,
)
from sat_jax.errors import SatError
from sat_jax.find_model import find_checkpoint
from sat_jax.runtime.devices import usable_cores
from sat_jax.runtime.jax_modes import standard_modes
from sat_jax.runtime.program_store import default_store, open_store, run_program
from sat_jax.streaming.ends import gather_ends
from sat_jax.streaming.framing import Framing, make_framing
from sat_jax.streaming.incremental import SpectrogramStream, score_in_pieces
from sat_jax.streaming.many_files import TaggedFile, tag_many
from sat_jax.streaming.model import StreamingModel
from sat_jax.streaming.pieces import Variables, aggregate, to_probs
from sat_jax.streaming.scored_chunk import ScoredChunk, check_finite
from sat_jax.streaming.state import StreamState, check_streams, new_streams, state_layout
from sat_jax.streaming.windows import hold_samples
from sat_jax.weights.checkpoint import Checkpoint


class Tagger:
    """A model with its weights, ready to tag sounds.

    Attributes:
      streams: the model and how its streams are cut into chunks.
      variables: its weights, on the device.
      labels: names of its classes, in output order.
      source: where the weights came from.
      keep_programs: whether its compiled programs are kept for the next start.
      programs: the store of its compiled programs.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        chunk_seconds: float | None = None,
        framing: FramingKind = "chunk",
        pad_last: bool | None = None,
        dtype: Dtype | None = None,
        keep_programs: bool = True,
    ) -> None:
        """Makes a tagger from a loaded checkpoint.

        Args:
          checkpoint: model and weights.
          chunk_seconds: length of a chunk, at least 0.16 s; None is the model's own.
          framing: "chunk" as published, or "seamless"; see `sat_jax.streaming.Framing`.
          pad_last: whether a shorter last piece is zero-padded or dropped; None is the
            checkpoint's own setting.
          dtype: precision of the computation; None is the checkpoint's own.
          keep_programs: whether compiled programs are kept for the next start, in the cache folder:
            see `sat_jax.runtime.program_store.default_store`. False keeps them in memory only.

        Raises:
          SatError: the checkpoint is an autoencoder, which has no classes, or the chunk length
            does not suit the model.
        """
        config = checkpoint.config
        if not isinstance(config, ModelConfig):
            raise SatError(
                "this checkpoint is a masked autoencoder, which has no classes: train a tagger "
                "from it first"
            )
        if pad_last is not None:
            config = dataclasses.replace(config, pad_last=pad_last)
        if dtype is not None:
            config = dataclasses.replace(config, dtype=dtype)
        made = make_framing(config, framing, chunk_seconds=chunk_seconds)
        self.streams = StreamingModel(config, made)
        self.variables: Variables = checkpoint.variables
        self.labels = checkpoint.labels
        self.source = checkpoint.source
        self.keep_programs = keep_programs
        self._start()

    def _start(self) -> None:
        """Makes what belongs to this process: arrays on the device, and compiled programs."""
        with standard_modes():
            self.variables = jax.device_put(self.variables)
            self._state_layout = state_layout(self.streams.state_shape(self.variables))
        self.programs = default_store() if self.keep_programs else open_store(None)
        self._device = next(iter(jax.tree.leaves(self.variables)[0].devices()))
        self._running: dict[Any, Any] = {}
        self._fresh: dict[Warmup, StreamState] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Returns what a pickle holds: settings, names and weights."""
        names = ("streams", "labels", "source", "keep_programs")
        return {name: getattr(self, name) for name in names} | {
            "variables": jax.device_get(self.variables)
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Starts from what a pickle holds."""
        self.__dict__.update(state)
        self._start()

    @classmethod
    def load(
        cls,
        name_or_path: str | Path,
        *,
        chunk_seconds: float | None = None,
        framing: FramingKind = "chunk",
        pad_last: bool | None = None,
        dtype: Dtype | None = None,
        keep_programs: bool = True,
    ) -> Self:
        """Loads a model.

        Args:
          name_or_path: see `sat_jax.find_model.find_checkpoint`.
          chunk_seconds: see `Tagger`.
          framing: see `Tagger`.
          pad_last: see `Tagger`.
          dtype: see `Tagger`.
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
            keep_programs=keep_programs,
        )

    def __repr__(self) -> str:
        """Shows the source of the weights, the number of classes and the chunk length."""
        seconds = self.framing.hop / self.config.frontend.sample_rate
        kind = "streaming" if self.config.is_streaming else "clip"
        return (
            f"<Tagger: {kind} model, {len(self.labels)} classes, {self.framing.kind} framing of "
            f"{seconds:g} s, weights: {self.source}>"
        )

    @property
    def config(self) -> ModelConfig:
        """The model's settings."""
        return self.streams.config

    @property
    def framing(self) -> Framing:
        """How its streams are cut into chunks."""
        return self.streams.framing

    def init(self, batch_size: int = 1, warmup: Warmup = "silence") -> StreamState:
        """Returns the state of new streams.

        Args:
          batch_size: number of streams.
          warmup: "silence" fills the cache as the published program does, "none" leaves it empty.

        Raises:
          SatError: the batch size is not a whole number above 0, or there is no such warm-up.
        """
        check_choice("warmup", warmup, get_args(Warmup))
        if not _is_whole(batch_size) or batch_size < 1:
            raise SatError(f"batch_size={batch_size!r}: give a whole number of streams, at least 1")
        if warmup == "silence" and self.streams.step_warms_up():
            fresh = self._run(StreamingModel.init, batch_size=batch_size, warmup="none")
            silence = np.zeros((batch_size, self.framing.window), np.float32)
            everywhere = np.ones(batch_size, bool)
            _, model = self._run(StreamingModel.step, silence, fresh, everywhere)
        else:
            model = self._run(StreamingModel.init, batch_size=batch_size, warmup=warmup)
        return new_streams(self.framing, model)

    def step(
        self, samples: np.ndarray | jax.Array, state: StreamState
    ) -> tuple[np.ndarray, StreamState]:
        """Processes the next samples of every stream.

        Blocks of any lengths are one compiled program. It runs only when a chunk is complete; other
        calls just hold the samples in NumPy.

        Args:
          samples: float32 [b, s] in [-1, 1] at 16 kHz, or [s] for one stream; 1 <= s <=
            framing.hop. With exactly framing.hop samples and chunk framing every call completes
            a chunk.
          state: from `init` or an earlier step; it stays valid.

        Returns:
          Probabilities float32 [b, y] of the chunk that is now complete, zeros for streams whose
          chunk is not (``state.ready`` is False); and the next state.

        Raises:
          SatError: wrong shape or type, more than one hop of samples, or the state of a tagger
            with another model, framing or chunk length.
        """
        state = self._checked(state)
        samples = _as_floats(samples).astype(np.float32, copy=False)
        samples = samples.reshape(1, -1) if samples.ndim == 1 else samples
        self._check_block(samples, "[streams, samples]", state)
        windows, held = hold_samples(self.framing, state, samples)
        if not held.ready.any():
            return np.zeros((len(samples), self.config.num_classes), np.float32), held
        probs, model = self._run(StreamingModel.step, windows, state.model, held.ready)
        return jax.device_get(probs), held.after(model)

    def scan(
        self, samples: np.ndarray | jax.Array, state: StreamState
    ) -> tuple[np.ndarray, np.ndarray, StreamState]:
        """Runs many steps as one program; equals `step` in a loop over the first axis.

        Args:
          samples: float32 [k, b, s] in [-1, 1] at 16 kHz, the samples of each of k steps.
          state: before the first step; it stays valid.

        Returns:
          Probabilities float32 [k, b, y], bool [k, b] whether each step completed a chunk, and the
          state after the last step.

        Raises:
          SatError: see `step`.
        """
        state = self._checked(state)
        samples = _as_floats(samples).astype(np.float32, copy=False)
        self._check_block(samples, "[steps, streams, samples]", state)
        held, windows = state, []
        ready = np.zeros(samples.shape[:2], bool)
        for index, block in enumerate(samples):
            window, held = hold_samples(self.framing, held, block)
            ready[index] = held.ready
            if held.ready.any():
                windows.append(window)
        runs = ready.any(1)
        probs = np.zeros((*ready.shape, self.config.num_classes), np.float32)
        if windows:
            arguments = (np.stack(windows), state.model, ready[runs])
            found, model = self._run(StreamingModel.scan, *arguments)
            probs[runs] = jax.device_get(found)
            held = held.after(model)
        return probs, ready, held

    def finish(self, state: StreamState) -> np.ndarray:
        """Scores what the end of the streams left over.

        Args:
          state: after the last step; all streams at the same point.

        Returns:
          Probabilities float32 [k, b, y] of the chunks that were left, in order. k is 0 if nothing
          is left, and at most 1 with chunk framing. Seamless framing waits for a chunk's last
          frame, so a whole chunk may be left, and with ``pad_last`` a shorter one after it.

        Raises:
          SatError: the streams are at different points, or of another tagger.
        """
        state = self._checked(state)
        count, filled = len(state.filled), state.filled[0]
        if (state.filled != filled).any() or (state.chunks != state.chunks[0]).any():
            raise SatError("these streams end at different points: finish them one at a time")
        rests = list(state.window[:, :filled])
        ends = gather_ends(self.config, self.framing, rests, state.chunks.tolist())
        left = int(ends.num_chunks(self.framing)[0])
        if not left:
            return np.zeros((0, count, self.config.num_classes), np.float32)
        probs: np.ndarray = jax.device_get(self._run(StreamingModel.finish, ends, state.model))
        return probs[:left]

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
                probs, state = self.step(block[first : first + framing.hop], state)
                if state.ready[0]:
                    yield _scored(start, start + framing.hop, probs, rate)
                    start += framing.hop
        end = start + int(state.filled[0]) - framing.margin
        for probs in self.finish(state):
            # The last frame of a whole chunk reaches beyond it, to both sides of the very end.
            yield _scored(start, min(start + framing.hop, end), probs, rate)
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
                probs = np.asarray(to_probs(config, aggregate(jnp.asarray(scores), aggregation)))
            yield _scored(0, num_samples, probs, config.frontend.sample_rate)

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
        check_choice("mode", mode, get_args(Mode))
        if not isinstance(path, (str, os.PathLike)):
            raise SatError(f"{path!r} is not a path: give a file's name")
        rate = self.config.frontend.sample_rate
        blocks = read_blocks(path, sample_rate=rate, channel=channel, full_scale=full_scale)
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
          SatError: `jobs`, `mode`, `aggregation` or `warmup` is none that exists.
        """
        if jobs is not None and (not _is_whole(jobs) or jobs < 1):
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

    def _checked(self, state: StreamState) -> StreamState:
        state = check_streams(state, self.framing)
        if state_layout(state.model) != self._state_layout:
            raise SatError("this state belongs to another model: use init() of this tagger")
        return state

    def _check_block(self, samples: np.ndarray, axes: str, state: StreamState) -> None:
        """Checks samples of which `axes` names the axes, streams and samples last."""
        streams, shape = len(state.filled), samples.shape
        if len(shape) != axes.count(",") + 1 or shape[-2] != streams:
            raise SatError(
                f"samples have shape {list(shape)}, but the state has {streams} streams: give "
                f"{axes}"
            )
        if not 1 <= shape[-1] <= self.framing.hop:
            raise SatError(
                f"a step takes 1 to {self.framing.hop} samples, not {shape[-1]}: cut them into "
                "blocks"
            )

    def prepare(self, batch_size: int = 1, warmup: Warmup = "silence") -> None:
        """Loads or compiles all programs of stream mode, so that later calls never wait for that.

        Args:
          batch_size: number of streams.
          warmup: see `init`.

        Raises:
          SatError: see `init`.
        """
        state = self.init(batch_size, warmup)
        self._program(StreamingModel.step, state.window, state.model, state.ready)
        ends = gather_ends(self.config, self.framing, list(state.window[:, :0]), [0] * batch_size)
        self._program(StreamingModel.finish, ends, state.model)

    def _run(self, method: Any, *args: Any, **options: Any) -> Any:
        """Calls a compiled method of `StreamingModel` with the weights, `args` and `options`."""
        return run_program(self._program(method, *args, **options), self.variables, *args)

    def _program(self, method: Any, *args: Any, **options: Any) -> Any:
        """Returns the program of `_run`. The first array's shape decides all others."""
        first = [np.shape(leaf) for leaf in jax.tree.leaves(args[:1])[:1]]
        key = (method.__name__, *first, *options.items())
        if key not in self._running:
            with jax.default_device(self._device):
                self._running[key] = self.programs.program(
                    method, (self.streams,), self.variables, *args, **options
                )
        return self._running[key]


def _mono(blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    for given in blocks:
        block = _as_floats(given)
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


def _as_floats(samples: Any) -> np.ndarray:
    """Returns samples as a NumPy array, which must hold floating-point numbers."""
    try:
        # Explicit, so that a transfer guard lets it pass.
        array = np.asarray(jax.device_get(samples) if isinstance(samples, jax.Array) else samples)
    except ValueError as error:
        raise SatError(f"samples are not an array of numbers: {error}") from error
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise SatError(
            f"samples are {array.dtype}: give floating-point numbers in [-1, 1], 16-bit samples "
            "divided by 32768"
        )
    return array


def _is_whole(number: object) -> bool:
    return isinstance(number, Integral) and not isinstance(number, bool)


def _scored(start: int, end: int, probs: np.ndarray, rate: int) -> ScoredChunk:
    checked = check_finite(probs[0])
    return ScoredChunk(start=start / rate, end=end / rate, probs=checked)
