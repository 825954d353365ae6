"""How the model takes a spectrogram: in pieces, one call each, the cache carried along.

A piece has at most `target_length` frames. A streaming chunk of the model's own length is one
piece; longer chunks and whole recordings are several.
"""

import dataclasses
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from sat_jax.config import PATCH_SIZE, Aggregation, ModelConfig
from sat_jax.models.cache import Cache
from sat_jax.models.frontend import log_mel
from sat_jax.models.transformer import AudioTransformer
from sat_jax.streaming.framing import Framing

Variables = Any
"""A Flax variable tree: {"params": …} and, with BatchNorm, {"batch_stats": …}."""


def apply(model: nn.Module, variables: Variables, *args: Any, **kwargs: Any) -> Any:
    """Calls ``model.apply``, typed for calls that change no variables."""
    return model.apply(variables, *args, **kwargs)


class PiecePlan(NamedTuple):
    """How a spectrogram is cut into pieces; hashable.

    Attributes:
      num_whole: whole pieces.
      length: frames of each.
      rest: frames left over that are scored too, after zero-padding; 0 if they are dropped.
      padded: frames of that last piece with its padding.
    """

    num_whole: int
    length: int
    rest: int
    padded: int

    @property
    def is_empty(self) -> bool:
        """Whether nothing is left to score."""
        return not (self.num_whole or self.rest)

    @property
    def lengths(self) -> list[tuple[int, int]]:
        """Frames of each piece, without and with padding."""
        last = [(self.rest, self.padded)] if self.rest else []
        return [(self.length, self.length)] * self.num_whole + last


def plan_pieces(config: ModelConfig, frames: int) -> PiecePlan:
    """Plans the pieces of `frames` frames, as published.

    A streaming model takes `target_length` frames in a piece. A clip model takes up to 15 more
    when no second piece is needed. A shorter last piece is dropped, unless the config says
    ``pad_last``. Then a clip model's is zero-padded to full length, a streaming model's to whole
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


def plan_clip(config: ModelConfig, frames: int) -> PiecePlan:
    """Plans a whole recording, so that recordings of any length need few compiled programs."""
    return _whole_patches(plan_pieces(config, frames))


def plan_rest(config: ModelConfig, framing: Framing, *, filled: int, chunks: int) -> PiecePlan:
    """Plans what the end of a stream left in its window.

    With chunk framing, a shorter last chunk is scored like any other, padded with silence to one
    patch. With seamless framing, the pieces are those that clip mode cuts the whole recording into:
    a whole one, perhaps completed only by its last frame, and with ``pad_last`` a shorter one.

    Args:
      config: the model.
      framing: of the stream.
      filled: samples in the window, the margin included.
      chunks: chunks completed.

    Returns:
      The pieces; the plan is empty if nothing is left.
    """
    samples = filled - framing.margin
    if samples <= 0:
        return PiecePlan(0, 0, 0, 0)
    frames = config.frontend.num_frames(samples)
    if framing.kind == "chunk":
        return plan_clip(config, frames)
    hop = framing.hop // config.frontend.hop_length
    recording = dataclasses.replace(config, target_length=hop)
    plan = plan_pieces(recording, chunks * hop + frames)
    return _whole_patches(plan._replace(num_whole=plan.num_whole - chunks))


def _whole_patches(plan: PiecePlan) -> PiecePlan:
    """Cuts a single piece to whole patches, at least one: the model ignores later frames."""
    if plan.num_whole != 1 or plan.rest:
        return plan
    return plan._replace(length=max(plan.length // PATCH_SIZE, 1) * PATCH_SIZE)


def normalize(model: AudioTransformer, variables: Variables, spectrogram: jax.Array) -> jax.Array:
    """Applies the input normalisation with the trained statistics: dB [b, f, t] -> [b, f, t]."""
    return apply(model, variables, spectrogram, method="normalize")


def run_pieces(
    model: AudioTransformer,
    variables: Variables,
    normalized: jax.Array,
    cache: Cache,
    *,
    plan: PiecePlan | None = None,
) -> tuple[jax.Array, Cache]:
    """Runs the model on the pieces of a spectrogram in order.

    Args:
      model: the network.
      variables: its weights.
      normalized: [b, f, t], normalised log-mel.
      cache: of the stream before the spectrogram.
      plan: its pieces, at least one; None is `plan_pieces` of all frames.

    Returns:
      The model's outputs [k, b, y], and the cache after the last piece.
    """

    def call(cache: Cache, piece: jax.Array) -> tuple[Cache, jax.Array]:
        scores, cache = apply(model, variables, piece, cache)
        return cache, scores

    plan = plan or plan_pieces(model.config, normalized.shape[-1])
    pieces, rest = cut_pieces(plan, normalized)
    outputs = []
    if plan.num_whole == 1:  # A loop of one round would only cost compile time and memory.
        cache, first = call(cache, pieces[0])
        outputs.append(first[None])
    elif plan.num_whole:
        cache, scores = jax.lax.scan(call, cache, pieces)
        outputs.append(scores)
    if rest is not None:
        cache, last = call(cache, rest)
        outputs.append(last[None])
    return jnp.concatenate(outputs), cache


def cut_pieces(plan: PiecePlan, normalized: jax.Array) -> tuple[jax.Array, jax.Array | None]:
    """Returns the whole pieces [k, b, f, t] of [b, f, t], and the zero-padded last one or None."""
    batch, bins, _ = normalized.shape
    whole = plan.num_whole * plan.length
    pieces = normalized[..., :whole].reshape(batch, bins, plan.num_whole, plan.length)
    pieces = pieces.transpose(2, 0, 1, 3)
    if not plan.rest:
        return pieces, None
    rest = normalized[..., whole : whole + plan.rest]
    return pieces, jnp.pad(rest, ((0, 0), (0, 0), (0, plan.padded - plan.rest)))


def zero_past_end(normalized: jax.Array, num_frames: jax.Array) -> jax.Array:
    """Sets the frames after the first `num_frames` [b] of [b, f, t] to zero."""
    is_real = jnp.arange(normalized.shape[-1]) < num_frames[:, None]
    return jnp.where(is_real[:, None], normalized, 0.0)


def warm_cache(model: AudioTransformer, variables: Variables, cache: Cache) -> Cache:
    """Returns the cache of streams after silence of the cache's length.

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


def aggregate(scores: jax.Array, how: Aggregation) -> jax.Array:
    """Reduces the outputs of several pieces to one: [k, b, y] -> [b, y]."""
    if how == "last":
        return scores[-1]
    return scores.max(0) if how == "max" else scores.mean(0)


def to_probs(config: ModelConfig, scores: jax.Array) -> jax.Array:
    """Turns model outputs [..., y] or [..., y + d] into probabilities; embeddings stay as they are.

    Model outputs are logits with "logit" pooling, else probabilities.
    """
    if config.pooling != "logit":
        return scores
    probs = jax.nn.sigmoid(scores[..., : config.num_classes])
    return jnp.concatenate([probs, scores[..., config.num_classes :]], axis=-1)
