"""The tagger: sounds in, probabilities of classes out.

    tagger = Tagger.load("SAT_T_2s")
    for chunk in tagger.tag_file("street.wav"):
        print(chunk.start, tagger.labels[chunk.probs.argmax()])

or, for a stream that never ends::

    state = tagger.init()
    probs, state = tagger.step(samples, state)
"""

import dataclasses
import os
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from numbers import Integral
from pathlib import Path
from typing import Any, Literal, Self, get_args

import jax
import jax.numpy as jnp
import numpy as np

from sat_jax.audio import read_blocks
from sat_jax.audio.mono import MAX_AMPLITUDE
from sat_jax.config import PATCH_SIZE, Dtype, ModelConfig, check_choice
from sat_jax.errors import SatError
from sat_jax.labels import default_label_names
from sat_jax.models.cache import Cache, init_cache
from sat_jax.models.frontend import floor_top_db
from sat_jax.models.registry import MODELS, model_config
from sat_jax.models.transformer import AudioTransformer, init_variables
from sat_jax.runtime.devices import check_devices
from sat_jax.runtime.program_store import ProgramStore
from sat_jax.streaming.blocks import SpectrogramStream, rebuffer
from sat_jax.streaming.framing import Framing, FramingKind, make_framing
from sat_jax.streaming.pieces import (
    Aggregation,
    Variables,
    aggregate,
    apply,
    normalize,
    only_heard,
    plan_pieces,
)
from sat_jax.streaming.step import (
    StreamState,
    Warmup,
    init_stream,
    plan_rest,
    score_rest,
    stream_step,
)
from sat_jax.tagging.tags import ScoredChunk
from sat_jax.weights.catalog import bundled_folder
from sat_jax.weights.checkpoint import Checkpoint, is_checkpoint, load_checkpoint

Mode = Literal["stream", "clip"]

_init_stream = jax.jit(
    init_stream, static_argnums=0, static_argnames=("batch_size", "framing", "warmup")
)
_stream_step = jax.jit(stream_step, static_argnums=0, static_argnames="framing")
_score_rest = jax.jit(score_rest, static_argnums=0, static_argnames=("framing", "plan"))
_init_variables = jax.jit(init_variables, static_argnums=0)


class Tagger:
    """A model ready to hear.

    Attributes:
      config: the model's settings.
      labels: names of its classes, in output order.
      framing: how its streams are cut into chunks.
      variables: its weights, on the device.
      source: where the weights came from, for people.
      programs: where its compiled programs are kept for the next start, or None.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        chunk_seconds: float | None = None,
        framing: FramingKind = "chunk",
        pad_last: bool | None = None,
        dtype: Dtype | None = None,
        programs: ProgramStore | None = None,
    ) -> None:
        """Makes a tagger from a loaded checkpoint.

        Args:
          checkpoint: model and weights.
          chunk_seconds: what one step takes, at least 0.16 s; None is the model's own length.
          framing: "chunk" as published, or "seamless"; see `sat_jax.streaming.framing.Framing`.
          pad_last: whether a shorter last piece is zero-padded or dropped; None is the
            checkpoint's own setting.
          dtype: precision of the computation; None is the checkpoint's own.
          programs: where compiled programs are kept for the next start; None keeps none.

        Raises:
          SatError: the checkpoint is an autoencoder, which has no classes, or the chunk length
            does not suit the model.
        """
        config = checkpoint.config
        if not isinstance(config, ModelConfig):
            raise SatError(
                "this checkpoint is a masked autoencoder, which knows no classes: train a tagger "
                "from it first"
            )
        if pad_last is not None:
            config = dataclasses.replace(config, pad_last=pad_last)
        if dtype is not None:
            config = dataclasses.replace(config, dtype=dtype)
        self.config = config
        self.labels = checkpoint.labels
        self.framing: Framing = make_framing(config, framing, chunk_seconds=chunk_seconds)
        self.variables: Variables = jax.device_put(checkpoint.variables)
        self.source = checkpoint.source
        self._model = AudioTransformer(config)
        self.programs = programs
        self._step_warms_up = _step_warms_up(config, self.framing)
        init = partial(init_stream, self._model, framing=self.framing, warmup="none")
        self._state_layout = _layout(jax.eval_shape(partial(init, batch_size=1), self.variables))

    @classmethod
    def load(
        cls,
        name_or_path: str | Path,
        *,
        chunk_seconds: float | None = None,
        framing: FramingKind = "chunk",
        pad_last: bool | None = None,
        dtype: Dtype | None = None,
        programs: ProgramStore | None = None,
    ) -> Self:
        """Loads a model.

        Args:
          name_or_path: the name of the bundled model or of a published one (downloaded once, then
            kept), a checkpoint folder, or a PyTorch or safetensors file.
          chunk_seconds: see `Tagger`.
          framing: see `Tagger`.
          pad_last: see `Tagger`.
          dtype: see `Tagger`.
          programs: see `Tagger`.

        Raises:
          SatError: there is no such model, or it can't be fetched, read or used.
        """
        return cls(
            find_checkpoint(name_or_path),
            chunk_seconds=chunk_seconds,
            framing=framing,
            pad_last=pad_last,
            dtype=dtype,
            programs=programs,
        )

    def init(self, batch_size: int = 1, warmup: Warmup = "silence") -> StreamState:
        """The state of `batch_size` streams that have heard nothing, see `init_stream`.

        Raises:
          SatError: there is no such warm-up, or not one stream.
        """
        check_choice("warmup", warmup, get_args(Warmup))
        if not _is_whole(batch_size) or batch_size < 1:
            raise SatError(
                f"batch_size={batch_size!r} streams can't be kept: give a whole number, at least 1"
            )
        if warmup == "silence" and self._step_warms_up:
            fresh = self.init(batch_size, "none")
            silence = np.zeros((batch_size, self.framing.hop), np.float32)
            return fresh._replace(cache=self.step(silence, fresh)[1].cache)
        return self._run(_init_stream, batch_size=batch_size, framing=self.framing, warmup=warmup)

    def step(
        self, samples: np.ndarray | jax.Array, state: StreamState
    ) -> tuple[jax.Array, StreamState]:
        """Hears the next samples of every stream.

        Args:
          samples: float32 [b, s] in [-1, 1] at 16 kHz, or [s] for one stream; 1 <= s <=
            framing.hop. With exactly framing.hop samples and chunk framing every call completes
            a chunk.
          state: from `init` or an earlier step; it stays valid.

        Returns:
          Probabilities float32 [b, y] of the chunk now complete (zeros where
          ``state.ready`` is False: no chunk is complete yet), and the next state.

        Raises:
          SatError: wrong shape or type, more than one hop of samples, or the state of a tagger
            with another model, framing or chunk length.
        """
        self._check_state(state)
        samples = _as_floats(samples).astype(np.float32)
        samples = samples.reshape(1, -1) if samples.ndim == 1 else samples
        if samples.ndim != 2 or samples.shape[0] != state.window.shape[0]:
            raise SatError(
                f"samples have shape {list(samples.shape)}, the state holds "
                f"{state.window.shape[0]} streams: give [streams, samples]"
            )
        scores, next_state = self._run(_stream_step, samples, state, framing=self.framing)
        return self._probs(scores, next_state.ready), next_state

    def finish(self, state: StreamState) -> jax.Array:
        """Scores what the end of the streams left over.

        Args:
          state: after the last step; all streams at the same point.

        Returns:
          Probabilities float32 [k, b, y] of the chunks that were left, in order. k is 0 when
          there is nothing to score, and at most 1 with chunk framing; seamless framing, which
          waits for a chunk's last frame, may leave a whole chunk and with ``pad_last`` a shorter
          one behind it.

        Raises:
          SatError: the streams are at different points, or of another tagger.
        """
        self._check_state(state)
        filled, chunks = np.unique(state.filled), np.unique(state.chunks)
        if len(filled) > 1 or len(chunks) > 1:
            raise SatError("these streams end at different points: finish them one at a time")
        plan = plan_rest(self.config, self.framing, filled=int(filled[0]), chunks=int(chunks[0]))
        if not (plan.num_whole or plan.rest):
            return jnp.zeros((0, len(state.filled), self.config.num_classes))
        return self._probs(self._run(_score_rest, state, framing=self.framing, plan=plan))

    def stream(
        self, blocks: Iterable[np.ndarray], *, warmup: Warmup = "silence"
    ) -> Iterator[ScoredChunk]:
        """Stream mode: scores each chunk as soon as it is heard, the cache carried along.

        Args:
          blocks: float32 [s] each, of any length, mono at the model's rate.
          warmup: what the cache holds at the start.

        Yields:
          The chunks in order; the last may be shorter.

        Raises:
          SatError: a block has more than one axis or no floating-point numbers, or the scores are
            not finite.
        """
        framing, rate = self.framing, self.config.frontend.sample_rate
        state = self.init(1, warmup)
        # Seamless chunks need a few samples beyond their hop: held back, not stepped on.
        lead = framing.required - framing.margin - framing.hop
        start = 0
        for block in rebuffer(_mono(blocks), framing.hop, first=lead):
            whole = len(block) == framing.hop
            if not whole:
                state = _hold(state, block)
                continue
            probs, state = self.step(block, state)
            yield _scored(start, start + framing.hop, probs, rate)
            start += framing.hop
        end = start + int(state.filled[0]) - framing.margin
        for probs in self.finish(state):
            # A last frame behind a whole chunk hears what is before and behind the very end.
            yield _scored(start, min(start + framing.hop, end), probs, rate)
            start += framing.hop

    def clip(
        self, blocks: Iterable[np.ndarray], *, aggregation: Aggregation = "mean"
    ) -> Iterator[ScoredChunk]:
        """Clip mode: one spectrogram of the whole recording, one answer.

        Memory grows by 26 kB a second, the spectrogram's size.

        Args:
          blocks: float32 [s] each, of any length, mono at the model's rate.
          aggregation: how the answers of the pieces become one.

        Yields:
          One chunk, or none when the recording has no samples.

        Raises:
          SatError: a block has more than one axis or no floating-point numbers, or the scores are
            not finite.
        """
        check_choice("aggregation", aggregation, get_args(Aggregation))
        spectrogram = SpectrogramStream(self.config.frontend, self.programs)
        num_samples, parts = 0, []
        for block in _mono(blocks):
            num_samples += len(block)
            parts += spectrogram.push(block)
        missing = PATCH_SIZE * self.config.frontend.hop_length - num_samples
        if num_samples and missing > 0:  # Silence behind what is shorter than a patch.
            parts += spectrogram.push(np.zeros(missing, np.float32))
        parts += spectrogram.finish()
        if parts:
            scores = self._score_pieces(parts)
            answer = self._probs(aggregate(scores, aggregation))
            yield _scored(0, num_samples, answer, self.config.frontend.sample_rate)

    def tag_file(
        self,
        path: str | Path,
        *,
        mode: Mode = "stream",
        aggregation: Aggregation = "mean",
        warmup: Warmup = "silence",
        channel: int | None = None,
    ) -> Iterator[ScoredChunk]:
        """Tags an audio file of any format, rate, channel count and length.

        Args:
          path: the file.
          mode: "stream" answers chunk by chunk, "clip" once for the whole file.
          aggregation: clip mode only, see `clip`.
          warmup: stream mode only, see `stream`.
          channel: the channel to hear, counted from 0; None mixes all.

        Yields:
          Chunks in order.

        Raises:
          SatError: the file can't be read or is damaged; chunks before that were yielded.
        """
        check_choice("mode", mode, get_args(Mode))
        if not isinstance(path, (str, os.PathLike)):
            raise SatError(f"{path!r} is no path: give a file's name")
        rate = self.config.frontend.sample_rate
        blocks = read_blocks(path, sample_rate=rate, channel=channel)
        if mode == "clip":
            return self.clip(blocks, aggregation=aggregation)
        return self.stream(blocks, warmup=warmup)

    def _check_state(self, state: StreamState) -> None:
        if _layout(state) != self._state_layout:
            raise SatError(
                "this state is of a tagger with another model, framing or chunk length: begin with "
                "init() of this one"
            )

    def _run(self, function: Any, *args: Any, **options: Any) -> Any:
        """Calls a jitted function of the model, its variables, `args` and static `options`."""
        if self.programs is None:
            return function(self._model, self.variables, *args, **options)
        return self.programs.run(function, (self._model,), self.variables, *args, **options)

    def _probs(self, scores: jax.Array, ready: jax.Array | None = None) -> jax.Array:
        """Probabilities, also from models that answer with logits; zeros for what isn't ready."""
        if self.config.pooling != "logit":
            return scores
        probs = jax.nn.sigmoid(scores)
        return probs if ready is None else jnp.where(ready[:, None], probs, 0.0)

    def _score_pieces(self, parts: Sequence[np.ndarray]) -> jax.Array:
        """Clip mode's pieces one by one: a spectrogram in parts, dB [f, t] -> scores [k, 1, y]."""
        plan = only_heard(plan_pieces(self.config, sum(part.shape[1] for part in parts)))
        peak = np.array([max(part.max() for part in parts)])
        cache = init_cache(self.config, 1, "kv")
        scores: list[np.ndarray] = []
        # Never joined: the spectrogram of hours need not be held twice.
        for piece in rebuffer((part.T for part in parts), plan.length):
            whole = len(scores) < plan.num_whole
            if not whole and not plan.rest:
                break
            length = plan.length if whole else plan.padded
            padded = np.pad(piece.T, ((0, 0), (0, length - len(piece))))[None]
            answer, cache = self._run(_score_piece, padded, np.int32(len(piece)), peak, cache)
            scores.append(np.asarray(answer))
        return jnp.asarray(np.stack(scores))


def find_checkpoint(name_or_path: str | Path) -> Checkpoint:
    """Loads a checkpoint by a model's name, a folder or a file; see `Tagger.load`.

    Raises:
      SatError: there is no such model, or it can't be fetched, read or used.
    """
    if not (isinstance(name_or_path, (str, os.PathLike)) and str(name_or_path)):
        raise SatError(
            f"{name_or_path!r} is no model: give a file, a checkpoint folder or one of "
            f"{', '.join(MODELS)}"
        )
    path, name = Path(name_or_path), str(name_or_path)
    # A run's folder may be called as the model that it trains, and is no checkpoint.
    if is_checkpoint(path) or (path.is_dir() and name not in MODELS):
        return load_checkpoint(path)
    if path.is_file():
        from sat_jax.convert import convert_file

        return convert_file(path)
    if (folder := bundled_folder(name)) is not None:
        return load_checkpoint(folder)
    if name in MODELS:
        from sat_jax.convert import load_published

        return load_published(name)
    raise SatError(
        f"{name_or_path} is no file, no checkpoint folder and no model; the models are "
        f"{', '.join(MODELS)}"
    )


def random_checkpoint(
    name: str, seed: int = 0, *, programs: ProgramStore | None = None
) -> Checkpoint:
    """A named model with random weights, to try programs without any; its tags mean nothing.

    Args:
      name: a model's name.
      seed: of the weights.
      programs: see `Tagger`.

    Raises:
      SatError: no model has this name, or JAX has no device.
    """
    config = model_config(name)
    check_devices()
    # The old kind of key is a plain array, which a kept program can take.
    key = jax.random.PRNGKey(seed)
    if programs is None:
        variables = _init_variables(config, key)
    else:
        variables = programs.run(_init_variables, (config,), key)
    labels = default_label_names(config.num_classes)
    return Checkpoint(config=config, variables=variables, labels=labels, source="random weights")


@jax.jit(static_argnums=0)
def _score_piece(
    model: AudioTransformer,
    variables: Variables,
    power_db: jax.Array,
    real: jax.Array,
    peak_db: jax.Array,
    cache: Cache,
) -> tuple[jax.Array, Cache]:
    """Scores a piece [1, f, t] whose first `real` frames are sound and the rest padding."""
    spectrogram = floor_top_db(power_db, peak_db, model.config.frontend)
    normalized = normalize(model, variables, spectrogram)
    padding = jnp.arange(power_db.shape[-1]) >= real
    return apply(model, variables, jnp.where(padding, 0.0, normalized), cache)


def _step_warms_up(config: ModelConfig, framing: Framing) -> bool:
    """Whether a step on silence leaves the cache that the warm-up does: one program less.

    Silence is the same in every frame, so all that matters is that both hear one piece of as many
    patches. It is so for every published model with its own chunk length.
    """
    if framing.kind != "chunk" or not config.is_streaming:
        return False
    frames = (config.cache_length + 1, config.frontend.num_frames(framing.hop))
    warmup, step = (plan_pieces(config, each) for each in frames)
    one_piece = all(plan.num_whole == 1 and plan.rest == 0 for plan in (warmup, step))
    return one_piece and warmup.length // PATCH_SIZE == step.length // PATCH_SIZE


def _hold(state: StreamState, samples: np.ndarray) -> StreamState:
    """Puts samples into the window of the one stream without a step."""
    window, filled = np.array(state.window), int(state.filled[0])
    window[0, filled : filled + len(samples)] = samples
    filled_now = np.array([filled + len(samples)], np.int32)
    return state._replace(window=jnp.asarray(window), filled=jnp.asarray(filled_now))


def _layout(state: StreamState) -> tuple[Any, ...]:
    """All about a state's arrays but what is in them and how many streams they are for."""
    leaves, tree = jax.tree.flatten(state)
    return tree, *((np.shape(leaf)[1:], getattr(leaf, "dtype", None)) for leaf in leaves)


def _mono(blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    for given in blocks:
        block = np.asarray(_as_floats(given))
        if block.ndim != 1:
            raise SatError(
                f"a block of samples has shape {list(block.shape)}: give [samples], one channel"
            )
        if not (np.abs(block) < MAX_AMPLITUDE).all():  # False for NaN too.
            raise SatError(
                f"a block of samples holds NaN, or values beyond {MAX_AMPLITUDE:g}, which no sound "
                "has: repair it, or leave it out"
            )
        yield block


def _as_floats(samples: Any) -> np.ndarray | jax.Array:
    """Samples as an array of floating-point numbers."""
    array = samples
    if not isinstance(samples, jax.Array):
        try:
            array = np.asarray(samples)  # Kept off the device, where each change is a program.
        except ValueError as error:
            raise SatError(f"samples are no array of numbers: {error}") from error
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise SatError(
            f"samples are {array.dtype}: give floating-point numbers in [-1, 1], 16-bit samples "
            "divided by 32768"
        )
    return array


def _is_whole(number: object) -> bool:
    return isinstance(number, Integral) and not isinstance(number, bool)


def _scored(start: int, end: int, probs: jax.Array, rate: int) -> ScoredChunk:
    answer = np.asarray(probs)[0]
    if not np.isfinite(answer).all():
        raise SatError("scores are not finite: the model's weights are damaged, choose others")
    return ScoredChunk(start=start / rate, end=end / rate, probs=answer)
