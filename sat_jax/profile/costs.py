"""Tokens, multiply-adds and parameters of a streaming step, counted from a model's config.

A test holds the multiply-adds equal to the matrix products of the traced step.
"""

import dataclasses
import functools

import jax

from sat_jax.config import PATCH_SIZE, ModelConfig
from sat_jax.models.transformer import init_variables
from sat_jax.streaming.framing import Framing
from sat_jax.streaming.pieces import Variables, plan_pieces


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tokens:
    """Patches that one step processes, without a cls token.

    Attributes:
      new: patches of the chunk.
      cached: past tokens in the cache of each layer.
    """

    new: int
    cached: int

    def __str__(self) -> str:
        """Formats "new" or "new/cached", as the published table does."""
        return f"{self.new}/{self.cached}" if self.cached else str(self.new)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MultiplyAdds:
    """Multiply-adds of all matrix products of a step, for one stream.

    Attributes:
      patch_embedding: patches to tokens.
      qkv: queries, keys and values of new tokens.
      cached_kv: keys and values of cached tokens, in layer 0 only: the other layers cache theirs.
      attention_new: attention weights and sums over new tokens.
      attention_cached: attention weights and sums over cached tokens.
      projection: output projection of attention.
      mlp: both layers of the MLPs.
      head: the classifier.
      front_end: the mel filterbank.
      spared: with "token" pooling the last block computes projection and MLP for the cls token
        only. These are those of its other tokens; only `published` counts them.
    """

    patch_embedding: int
    qkv: int
    cached_kv: int
    attention_new: int
    attention_cached: int
    projection: int
    mlp: int
    head: int
    front_end: int
    spared: int

    @property
    def linear(self) -> int:
        """Multiply-adds of layers with weights, on new tokens."""
        return self.patch_embedding + self.qkv + self.projection + self.mlp + self.head

    @property
    def published(self) -> int:
        """Multiply-adds that published GFLOPs count: layers with weights on all new tokens."""
        return self.linear + self.spared

    @property
    def network(self) -> int:
        """Multiply-adds of the step without its front end."""
        return self.linear + self.cached_kv + self.attention_new + self.attention_cached

    @property
    def total(self) -> int:
        """Multiply-adds of the step."""
        return self.network + self.front_end

    def to_dict(self) -> dict[str, int]:
        """Returns parts and sums, JSON-ready."""
        sums = {name: getattr(self, name) for name in ("linear", "network", "total", "published")}
        return dataclasses.asdict(self) | sums


def count_tokens(config: ModelConfig, framing: Framing) -> Tokens:
    """Counts the tokens of a step that completes a chunk.

    Args:
      config: the model.
      framing: of kind "chunk".
    """
    columns = sum(_time_patches(config, framing))
    return Tokens(new=config.freq_patches * columns, cached=config.cache_tokens)


def count_multiply_adds(config: ModelConfig, framing: Framing) -> MultiplyAdds:
    """Counts the multiply-adds of a step that completes a chunk, with a cache of keys and values.

    An empty cache costs as much as a full one: it is masked, not skipped.

    Args:
      config: the model.
      framing: of kind "chunk".
    """
    pieces = [_count_piece(config, columns) for columns in _time_patches(config, framing)]
    network = {name: sum(piece[name] for piece in pieces) for name in pieces[0]}
    frontend = config.frontend
    bins = frontend.n_fft // 2 + 1
    frames = frontend.num_frames(framing.hop)
    return MultiplyAdds(front_end=frames * bins * frontend.n_mels, **network)


def _count_piece(config: ModelConfig, time_patches: int) -> dict[str, int]:
    """Counts one call of the network on so many patches of time."""
    width, depth, cached = config.width, config.depth, config.cache_tokens
    patches = config.freq_patches * time_patches
    has_cls = config.pooling == "token"
    tokens = patches + has_cls
    # The last block computes only what the cls token needs.
    queries = (depth - 1) * tokens + (1 if has_cls else tokens)
    projection, mlp = width**2, 2 * width * int(width * config.mlp_ratio)
    outputs = time_patches if config.pooling == "dm" else 1
    return {
        "patch_embedding": patches * PATCH_SIZE**2 * width,
        "qkv": depth * tokens * 3 * width**2,
        "cached_kv": cached * 2 * width**2,
        "attention_new": queries * 2 * tokens * width,
        "attention_cached": queries * 2 * cached * width,
        "projection": queries * projection,
        "mlp": queries * mlp,
        "head": outputs * width * config.num_classes,
        "spared": (depth * tokens - queries) * (projection + mlp),
    }


def _time_patches(config: ModelConfig, framing: Framing) -> list[int]:
    """Returns the patches of time in each call of the network in a chunk."""
    plan = plan_pieces(config, config.frontend.num_frames(framing.hop))
    return [min(padded // PATCH_SIZE, config.time_positions) for _, padded in plan.lengths]


def variable_shapes(config: ModelConfig) -> Variables:
    """Returns the shapes and dtypes of a model's weights."""
    return jax.eval_shape(functools.partial(init_variables, config), jax.random.key(0))


def count_parameters(config: ModelConfig) -> int:
    """Counts the trainable numbers of a model."""
    return sum(leaf.size for leaf in jax.tree.leaves(variable_shapes(config)["params"]))
