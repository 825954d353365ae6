"""Streams: chunk after chunk of live sound, many streams side by side.

`stream_step` takes the next samples of every stream and a state, and gives scores and the next
state. It is one compiled program from the first call to the last: an empty past is masked, and
streams in a batch may be at different points, be reset one by one, and never see each other.
`scan_chunks` is the same step under `jax.lax.scan`.
"""

import dataclasses
import functools
from typing import Literal, NamedTuple, TypeVar

import flax.serialization
import jax
import jax.numpy as jnp

from sat_jax.config import PATCH_SIZE, ModelConfig
from sat_jax.errors import SatError
from sat_jax.models.cache import Cache, CacheForm, init_cache
from sat_jax.models.frontend import log_mel
from sat_jax.models.transformer import AudioTransformer
from sat_jax.streaming.framing import Framing, chunk_spectrogram, last_spectrogram
from sat_jax.streaming.pieces import (
    PiecePlan,
    Variables,
    aggregate,
    normalize,
    only_heard,
    plan_pieces,
    run_pieces,
)

Warmup = Literal["silence", "none"]
Tree = TypeVar("Tree")


class StreamState(NamedTuple):
    """All that is needed to go on with a batch of streams; a plain pytree of arrays [b, …].

    Attributes:
      cache: past tokens of every layer.
      window: float32 [b, s], samples not yet used up, see `Framing`; zeros behind `filled`.
      filled: int32 [b], samples in the window.
      chunks: int32 [b], chunks completed.
      peak_db: float32 [b], loudest log-mel value heard (seamless framing only).
      ready: bool [b], whether the last step completed a chunk, so that its scores count.
    """

    cache: Cache
    window: jax.Array
    filled: jax.Array
    chunks: jax.Array
    peak_db: jax.Array
    ready: jax.Array


def init_stream(
    model: AudioTransformer,
    variables: Variables,
    batch_size: int,
    *,
    framing: Framing,
    warmup: Warmup = "silence",
    cache_form: CacheForm = "kv",
) -> StreamState:
    """The state of streams that have heard nothing yet.

    Args:
      model: the network.
      variables: its weights.
      batch_size: streams.
      framing: from `make_framing`.
      warmup: "silence" fills the cache by one call on zeros of the cache's length, as the
        published program does; "none" starts with an empty cache, as training and clip mode do.
      cache_form: see `init_cache`.
    """
    cache = init_cache(model.config, batch_size, cache_form)
    if warmup == "silence" and model.config.is_streaming:
        cache = hear_silence(model, variables, cache)
    return StreamState(
        cache=cache,
        window=jnp.zeros((batch_size, framing.window), jnp.float32),
        filled=jnp.full((batch_size,), framing.margin, jnp.int32),
        chunks=jnp.zeros((batch_size,), jnp.int32),
        peak_db=jnp.full((batch_size,), -jnp.inf, jnp.float32),
        ready=jnp.zeros((batch_size,), bool),
    )


def hear_silence(model: AudioTransformer, variables: Variables, cache: Cache) -> Cache:
    """The cache of streams that have heard as much silence as the cache holds.

    Args:
      model: the network.
      variables: its weights.
      cache: an empty one, from `init_cache`.
    """
    frontend = model.config.frontend
    batch_size = cache.num_real.shape[0]
    silence = jnp.zeros((1, model.config.cache_length * frontend.hop_length), jnp.float32)
    one = jax.tree.map(lambda leaf: leaf[:1], cache)
    spectrogram = normalize(model, variables, log_mel(silence, frontend))
    _, one = run_pieces(model, variables, spectrogram, one)
    return jax.tree.map(lambda leaf: jnp.repeat(leaf, batch_size, axis=0), one)


def stream_step(
    model: AudioTransformer,
    variables: Variables,
    samples: jax.Array,
    state: StreamState,
    *,
    framing: Framing,
) -> tuple[jax.Array, StreamState]:
    """Hears the next samples of every stream.

    Args:
      model: the network.
      variables: its weights.
      samples: float32 [b, s] in [-1, 1], 1 <= s <= framing.hop.
      state: from `init_stream` or an earlier step.
      framing: the one the state was made with.

    Returns:
      Scores float32 [b, y] (see `AudioTransformer`) of the chunk that these samples complete,
      zeros for streams where they complete none (``ready`` is False), and the next state.

    Raises:
      SatError: more samples than one hop, so that two chunks could be complete at once.
    """
    if not 1 <= samples.shape[1] <= framing.hop:
        raise SatError(
            f"a step takes 1 to {framing.hop} samples, not {samples.shape[1]}: cut them into blocks"
        )
    window = _append(state.window, samples, state.filled, framing)
    filled = state.filled + samples.shape[1]
    ready = filled >= framing.required
    scores, cache, peak_db = jax.lax.cond(
        ready.any(),
        functools.partial(_score_window, model, framing),
        functools.partial(_score_nothing, model),
        variables,
        window[:, : framing.window],
        state,
    )
    next_state = StreamState(
        cache=_where(ready, cache, state.cache),
        window=jnp.where(ready[:, None], window[:, framing.hop :], window[:, : framing.window]),
        filled=jnp.where(ready, filled - framing.hop, filled),
        chunks=state.chunks + ready,
        peak_db=jnp.where(ready, peak_db, state.peak_db),
        ready=ready,
    )
    return jnp.where(ready[:, None], scores, 0.0), next_state


def _append(
    window: jax.Array, samples: jax.Array, filled: jax.Array, framing: Framing
) -> jax.Array:
    """The window with a hop of room behind it, samples put in at `filled`."""
    roomy = jnp.pad(window, ((0, 0), (0, framing.hop)))
    return jax.vmap(jax.lax.dynamic_update_slice)(roomy, samples, filled[:, None])


def _score_window(
    model: AudioTransformer,
    framing: Framing,
    variables: Variables,
    window: jax.Array,
    state: StreamState,
) -> tuple[jax.Array, Cache, jax.Array]:
    spectrogram, peak_db = chunk_spectrogram(
        window, state.chunks, state.peak_db, framing=framing, frontend=model.config.frontend
    )
    normalized = normalize(model, variables, spectrogram)
    scores, cache = run_pieces(model, variables, normalized, state.cache)
    return aggregate(scores, "mean"), cache, peak_db


def _score_nothing(
    model: AudioTransformer, variables: Variables, window: jax.Array, state: StreamState
) -> tuple[jax.Array, Cache, jax.Array]:
    del variables
    scores = jnp.zeros((window.shape[0], model.config.num_classes), jnp.float32)
    return scores, state.cache, state.peak_db


def scan_chunks(
    model: AudioTransformer,
    variables: Variables,
    samples: jax.Array,
    state: StreamState,
    *,
    framing: Framing,
) -> tuple[jax.Array, jax.Array, StreamState]:
    """Many steps in one program whose memory does not grow with their number.

    Args:
      model: the network.
      variables: its weights.
      samples: float32 [k, b, s], what each of k steps hears.
      state: before the first step.
      framing: the one the state was made with.

    Returns:
      Scores [k, b, y] and ready [k, b] of the steps, and the state after the last.
    """

    def step(
        state: StreamState, block: jax.Array
    ) -> tuple[StreamState, tuple[jax.Array, jax.Array]]:
        scores, state = stream_step(model, variables, block, state, framing=framing)
        return state, (scores, state.ready)

    state, (scores, ready) = jax.lax.scan(step, state, samples)
    return scores, ready, state


def hold_samples(
    state: StreamState, samples: jax.Array, counts: jax.Array, *, framing: Framing
) -> StreamState:
    """Puts samples into the windows without a step: the end of streams, or what waits for more.

    Args:
      state: of the streams.
      samples: float32 [b, s], s at most framing.hop; zeros behind `counts`.
      counts: int32 [b], samples that count. They and those in the window are too few for a chunk.
      framing: the one the state was made with.
    """
    window = _append(state.window, samples, state.filled, framing)
    return state._replace(window=window[:, : framing.window], filled=state.filled + counts)


def plan_rest(config: ModelConfig, framing: Framing, *, filled: int, chunks: int) -> PiecePlan:
    """What `score_rest` should score at the end of a stream.

    Chunk framing scores a shorter last chunk like any other; under one patch it is padded with
    silence to one. Seamless framing goes on with the pieces that clip mode cuts the whole
    recording into: a whole one, perhaps completed by its last frame only now, and with
    ``pad_last`` a shorter one.

    Args:
      config: the model.
      framing: the one the stream was made with.
      filled: samples in the window, the margin included.
      chunks: chunks completed.

    Returns:
      The pieces; when nothing is left, `num_whole` and `rest` are 0.
    """
    heard = filled - framing.margin
    if heard <= 0:
        return PiecePlan(0, 0, 0, 0)
    frames = config.frontend.num_frames(heard)
    if framing.kind == "seamless":
        hop = framing.hop // config.frontend.hop_length
        recording = dataclasses.replace(config, target_length=hop)
        plan = plan_pieces(recording, chunks * hop + frames)
        plan = plan._replace(num_whole=plan.num_whole - chunks)
    else:
        plan = plan_pieces(config, frames)
    return only_heard(plan)


def score_rest(
    model: AudioTransformer,
    variables: Variables,
    state: StreamState,
    *,
    framing: Framing,
    plan: PiecePlan,
) -> jax.Array:
    """Scores what the end of the streams left in their windows.

    Args:
      model: the network.
      variables: its weights.
      state: after the last step.
      framing: the one the state was made with.
      plan: from `plan_rest`, of at least one piece, alike for all streams.

    Returns:
      float32 [k, b, y]: one answer with chunk framing, one for each piece with seamless framing.
    """
    config = model.config
    # A recording, or a chunk of its own, that is under one patch ends with silence.
    shortest = framing.margin + PATCH_SIZE * config.frontend.hop_length
    begins_here = (state.chunks == 0) | (framing.kind == "chunk")
    spectrogram = last_spectrogram(
        state.window,
        jnp.where(begins_here, jnp.maximum(state.filled, shortest), state.filled),
        state.chunks,
        state.peak_db,
        framing=framing,
        frontend=config.frontend,
    )
    normalized = normalize(model, variables, spectrogram)
    scores, _ = run_pieces(model, variables, normalized, state.cache, plan=plan)
    return scores if framing.kind == "seamless" else aggregate(scores, "mean")[None]


def reset_streams(state: StreamState, fresh: StreamState, mask: jax.Array) -> StreamState:
    """Starts the streams where `mask` [b] is True anew; the others go on untouched.

    Args:
      state: the running streams.
      fresh: from `init_stream`, of the same batch size.
      mask: bool [b].

    Raises:
      SatError: the mask is not one bool a stream, there are not as many fresh streams, or they
        are of another model or framing.
    """
    streams = state.chunks.shape
    if getattr(mask, "shape", None) != streams or mask.dtype != jnp.bool_:
        raise SatError(f"a mask must be bool{list(streams)}, one for each stream")
    if fresh.chunks.shape != streams:
        raise SatError(
            f"there are {len(fresh.chunks)} fresh streams for {len(state.chunks)}: init as many"
        )
    if _shapes(fresh) != _shapes(state):
        raise SatError("the fresh streams are of another model, framing or chunk length")
    return _where(mask, fresh, state)


def _shapes(tree: Tree) -> Tree:
    return jax.tree.map(lambda leaf: (jnp.shape(leaf), jnp.result_type(leaf)), tree)


def _where(mask: jax.Array, yes: Tree, no: Tree) -> Tree:
    def pick(a: jax.Array, b: jax.Array) -> jax.Array:
        return jnp.where(mask.reshape(-1, *[1] * (a.ndim - 1)), a, b)

    return jax.tree.map(pick, yes, no)


def state_to_bytes(state: StreamState) -> bytes:
    """A state as bytes (MessagePack), to store or to send elsewhere."""
    return flax.serialization.to_bytes(state)


def state_from_bytes(like: StreamState, data: bytes) -> StreamState:
    """Restores what `state_to_bytes` wrote.

    Args:
      like: a state of the same model, framing and batch size, for its shapes.
      data: the bytes.

    Raises:
      SatError: the bytes are damaged or belong to another kind of stream.
    """
    try:
        state = flax.serialization.from_bytes(like, data)
    except Exception as error:  # MessagePack raises many kinds for damaged input.
        raise SatError(f"these bytes are no stream state: {error}".splitlines()[0]) from error
    for have, want in zip(jax.tree.leaves(state), jax.tree.leaves(like), strict=True):
        if have.shape != want.shape or have.dtype != want.dtype:
            raise SatError(
                f"this stream state has {have.dtype}{list(have.shape)} where the model needs "
                f"{want.dtype}{list(want.shape)}: it belongs to another model, framing or batch"
            )
    return jax.tree.map(jnp.asarray, state)
