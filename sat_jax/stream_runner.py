"""Runs streams step by step: checks what callers give, and keeps compiled programs."""

import dataclasses
from numbers import Integral
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np

from sat_jax.config import (
    Dtype,
    FramingKind,
    ModelConfig,
    Warmup,
    check_choice,
)
from sat_jax.errors import SatError
from sat_jax.runtime.jax_modes import standard_modes
from sat_jax.runtime.program_store import default_store, open_store, run_program
from sat_jax.streaming.ends import gather_ends
from sat_jax.streaming.framing import Framing, make_framing
from sat_jax.streaming.model import StreamingModel
from sat_jax.streaming.pieces import Variables
from sat_jax.streaming.state import StreamState, check_streams, new_streams, state_layout
from sat_jax.streaming.windows import hold_samples
from sat_jax.weights.checkpoint import Checkpoint


class StreamRunner:
    """A model with its weights and compiled programs: streams of samples in, probabilities out.

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
        embeddings: bool = False,
        keep_programs: bool = True,
    ) -> None:
        """Makes a runner of a loaded checkpoint.

        Args:
          checkpoint: model and weights.
          chunk_seconds: length of a chunk, at least 0.16 s; None is the model's own.
          framing: "chunk" as published, or "seamless"; see `sat_jax.streaming.Framing`.
          pad_last: whether a shorter last piece is zero-padded or dropped; None is the
            checkpoint's own setting.
          dtype: precision of the computation; None is the checkpoint's own.
          embeddings: whether each `ScoredChunk` has its ``embedding``.
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
        self.streams = StreamingModel(config, made, embeds=embeddings)
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

    def __repr__(self) -> str:
        """Shows the source of the weights, the number of classes and the chunk length."""
        seconds = self.framing.hop / self.config.frontend.sample_rate
        kind = "streaming" if self.config.is_streaming else "clip"
        return (
            f"<{type(self).__name__}: {kind} model, {len(self.labels)} classes, "
            f"{self.framing.kind} framing of {seconds:g} s, weights: {self.source}>"
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
        if not is_whole(batch_size) or batch_size < 1:
            raise SatError(f"batch_size={batch_size!r}: give a whole number of streams, at least 1")
        if warmup == "silence" and self.streams.step_warms_up():
            fresh = self._run(StreamingModel.init, batch_size=batch_size, warmup="none")
            silence = np.zeros((batch_size, self.framing.window), np.float32)
            everywhere = np.ones(batch_size, bool)
            _, model = self._run(StreamingModel.step, silence, fresh, everywhere)
        else:
            model = self._run(StreamingModel.init, batch_size=batch_size, warmup=warmup)
        return new_streams(self.framing, model)

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
        outputs, state = self._step(samples, state)
        return outputs[..., : self.config.num_classes], state

    def _step(
        self, samples: np.ndarray | jax.Array, state: StreamState
    ) -> tuple[np.ndarray, StreamState]:
        """Is `step`, with embeddings behind the probabilities if there are any."""
        state = self._checked(state)
        samples = as_floats(samples).astype(np.float32, copy=False)
        samples = samples.reshape(1, -1) if samples.ndim == 1 else samples
        self._check_block(samples, "[streams, samples]", state)
        windows, held = hold_samples(self.framing, state, samples)
        if not held.ready.any():
            return np.zeros((len(samples), self.streams.num_outputs), np.float32), held
        outputs, model = self._run(StreamingModel.step, windows, state.model, held.ready)
        return _to_host(outputs), held.after(model)

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
        samples = as_floats(samples).astype(np.float32, copy=False)
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
            probs[runs] = _to_host(found)[..., : self.config.num_classes]
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
        return self._finish(state)[..., : self.config.num_classes]

    def _finish(self, state: StreamState) -> np.ndarray:
        """Is `finish`, with embeddings behind the probabilities if there are any."""
        state = self._checked(state)
        count, filled = len(state.filled), state.filled[0]
        if (state.filled != filled).any() or (state.chunks != state.chunks[0]).any():
            raise SatError("these streams end at different points: finish them one at a time")
        rests = list(state.window[:, :filled])
        ends = gather_ends(self.config, self.framing, rests, state.chunks.tolist())
        left = int(ends.num_chunks(self.framing)[0])
        if not left:
            return np.zeros((0, count, self.streams.num_outputs), np.float32)
        return _to_host(self._run(StreamingModel.finish, ends, state.model))[:left]

    def _checked(self, state: StreamState) -> StreamState:
        state = check_streams(state, self.framing)
        if state_layout(state.model) != self._state_layout:
            raise SatError("this state belongs to another model: use init() of this tagger")
        return state

    def _check_block(self, samples: np.ndarray, axes: str, state: StreamState) -> None:
        """Checks the shape of samples; the last two `axes` are streams and samples."""
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


def _to_host(array: jax.Array) -> np.ndarray:
    """Returns an array in NumPy; without a copy on CPUs, where `jax.device_get` takes 0.2 ms."""
    with standard_modes():
        return np.asarray(array)


def as_floats(samples: Any) -> np.ndarray:
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


def is_whole(number: object) -> bool:
    """Whether a number is an integer of Python or NumPy."""
    return isinstance(number, Integral) and not isinstance(number, bool)
