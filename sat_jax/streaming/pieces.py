"""Whole recordings, piece by piece."""

from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from sat_jax.config import PATCH_SIZE, ModelConfig
from sat_jax.models.cache import Cache, CacheForm, init_cache
from sat_jax.models.frontend import log_mel
from sat_jax.models.transformer import AudioTransformer

Aggregation = Literal["mean", "max", "last"]
Variables = Any
"""A Flax variable tree: {"params": …} and, with BatchNorm, {"batch_stats": …}."""


def apply(model: nn.Module, variables: Variables, *args: Any, **kwargs: Any) -> Any:
    """`model.apply` for calls that change no variables, which all but training are."""
    return model.apply(variables, *args, **kwargs)


class PiecePlan(NamedTuple):
    """How a recording of some frames is cut into the pieces that the model takes in turn.

    Attributes:
      num_whole: whole pieces.
      length: frames in each of them.
      rest: frames left over that are scored too, after zero-padding; 0 when they are dropped.
      padded: frames of that last piece, padding included.
    """

    num_whole: int
    length: int
    rest: int
    padded: int


def plan_pieces(config: ModelConfig, frames: int) -> PiecePlan:
    """Cuts `frames` frames as published.

    A streaming model takes `target_length` frames in a piece; a clip model takes up to 15 more
    when that is all there is. A shorter last piece is dropped unless the config says
    ``pad_last``: then a clip model's is zero-padded to full length, a streaming model's to whole
    patches.
    """
    target = config.target_length
    slack = 0 if config.is_streaming else PATCH_SIZE - 1
    if frames <= target + slack:
        return PiecePlan(1, frames, 0, 0)
    count, rest = divmod(frames, target)
    if not config.pad_last:
        return PiecePlan(count, target, 0, 0)
    unit = PATCH_SIZE if config.is_streaming else target
    return PiecePlan(count, target, rest, rest + -rest % unit)


def only_heard(plan: PiecePlan) -> PiecePlan:
    """Cuts a single piece to whole patches: what is behind them is not heard.

    Recordings of any lengths then need few programs. The piece has at least one patch.
    """
    if plan.num_whole != 1 or plan.rest:
        return plan
    return plan._replace(length=max(plan.length // PATCH_SIZE, 1) * PATCH_SIZE)


def run_pieces(
    model: AudioTransformer,
    variables: Variables,
    normalized: jax.Array,
    cache: Cache,
    *,
    plan: PiecePlan | None = None,
) -> tuple[jax.Array, Cache]:
    """Scores the pieces of a recording in order, the cache carried from one to the next.

    Args:
      model: the network.
      variables: its weights.
      normalized: [b, f, t], normalised log-mel.
      cache: what came before the recording.
      plan: its pieces, of which there is at least one; None is `plan_pieces` of all frames.

    Returns:
      Scores [k, b, y] of the pieces, and the cache after the last.
    """

    def step(cache: Cache, piece: jax.Array) -> tuple[Cache, jax.Array]:
        scores, cache = apply(model, variables, piece, cache)
        return cache, scores

    pieces, rest = _cut(plan or plan_pieces(model.config, normalized.shape[-1]), normalized)
    answers = []
    if len(pieces) == 1:  # A loop of one round only costs compile time and memory.
        cache, first = step(cache, pieces[0])
        answers.append(first[None])
    elif len(pieces):
        cache, scores = jax.lax.scan(step, cache, pieces)
        answers.append(scores)
    if rest is not None:
        cache, last = step(cache, rest)
        answers.append(last[None])
    return jnp.concatenate(answers), cache


def run_pieces_together(
    model: AudioTransformer,
    variables: Variables,
    normalized: jax.Array,
    cache: Cache,
    *,
    rngs: dict[str, jax.Array],
) -> jax.Array:
    """`run_pieces` in training: the same scores, for all whole pieces in one call of the model.

    Args:
      model: the network.
      variables: its weights.
      normalized: [b, f, t], normalised log-mel.
      cache: what came before; without a past, that is empty.
      rngs: keys for dropout and its like.

    Returns:
      Scores [k, b, y] of the pieces.
    """
    pieces, rest = _cut(plan_pieces(model.config, normalized.shape[-1]), normalized)
    count, batch_size = pieces.shape[:2]
    # A recording's pieces stay side by side, and so on the device that has the recording.
    rows = pieces.swapaxes(0, 1).reshape(-1, *pieces.shape[2:])
    scores, cache = apply(model, variables, rows, cache, train=True, rngs=rngs)
    scores = scores.reshape(batch_size, count, -1).swapaxes(0, 1)
    if rest is None:
        return scores
    keys = {name: jax.random.fold_in(key, count) for name, key in rngs.items()}
    last, _ = apply(model, variables, rest, cache, train=True, rngs=keys)
    return jnp.concatenate([scores, last[None]])


def _cut(plan: PiecePlan, normalized: jax.Array) -> tuple[jax.Array, jax.Array | None]:
    """The whole pieces [k, b, f, t] of [b, f, t], and the padded last one if it is scored too."""
    end = plan.num_whole * plan.length
    whole = normalized[..., :end].reshape(*normalized.shape[:2], plan.num_whole, plan.length)
    pieces = jnp.moveaxis(whole, 2, 0)
    if not plan.rest:
        return pieces, None
    rest = normalized[..., end : end + plan.rest]
    return pieces, jnp.pad(rest, ((0, 0), (0, 0), (0, plan.padded - plan.rest)))


def aggregate(scores: jax.Array, how: Aggregation) -> jax.Array:
    """One answer from many pieces: [k, b, y] -> [b, y]."""
    if how == "last":
        return scores[-1]
    return scores.max(0) if how == "max" else scores.mean(0)


def normalize(model: AudioTransformer, variables: Variables, spectrogram: jax.Array) -> jax.Array:
    """Input normalisation with the trained statistics: dB [b, f, t] -> [b, f, t]."""
    return apply(model, variables, spectrogram, method="normalize")


def clip_scores(
    model: AudioTransformer,
    variables: Variables,
    waveform: jax.Array,
    *,
    aggregation: Aggregation = "mean",
    cache_form: CacheForm = "kv",
) -> jax.Array:
    """Clip mode: one spectrogram of the whole recording, an empty cache at its start.

    Args:
      model: the network.
      variables: its weights.
      waveform: float32 [b, s] in [-1, 1] at the config's sample rate, at least 0.15 s.
      aggregation: how the pieces' scores become one.
      cache_form: see `init_cache`; the answers are the same.

    Returns:
      float32 [b, y].
    """
    spectrogram = log_mel(waveform, model.config.frontend)
    cache = init_cache(model.config, waveform.shape[0], cache_form)
    scores, _ = run_pieces(model, variables, normalize(model, variables, spectrogram), cache)
    return aggregate(scores, aggregation)


def ragged_clip_probs(
    model: AudioTransformer, variables: Variables, waveform: jax.Array, num_samples: jax.Array
) -> jax.Array:
    """Clip mode for clips of different lengths in one batch: mean of their pieces' probabilities.

    A piece counts where it lies inside its clip; the first one always does. (`clip_scores` would
    hear a clip shorter than a piece without the silence behind it; that is the only difference
    for models that drop the last piece.)

    Args:
      model: the network.
      variables: its weights.
      waveform: float32 [b, s], zeros behind a clip's end.
      num_samples: int32 [b].

    Returns:
      float32 [b, y] in [0, 1].
    """
    config = model.config
    spectrogram = log_mel(waveform, config.frontend, num_samples=num_samples)
    frames = config.frontend.num_frames(num_samples)
    is_heard = jnp.arange(spectrogram.shape[-1])[None, :] < frames[:, None]
    normalized = jnp.where(is_heard[:, None], normalize(model, variables, spectrogram), 0.0)
    cache = init_cache(config, waveform.shape[0], "kv")
    scores, _ = run_pieces(model, variables, normalized, cache)
    probs = jax.nn.sigmoid(scores) if config.pooling == "logit" else scores
    length = plan_pieces(config, spectrogram.shape[-1]).length
    # With pad_last a piece counts from its first frame on, else only when it is whole.
    needed = jnp.arange(len(probs)) * length + (1 if config.pad_last else length)
    counts = (needed[:, None] <= frames[None, :]).at[0].set(True)
    return jnp.where(counts[..., None], probs, 0.0).sum(0) / counts.sum(0)[:, None]
