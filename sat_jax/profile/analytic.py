"""What a step costs, from a model's config alone."""

import dataclasses
import functools

import jax

from sat_jax.config import PATCH_SIZE, ModelConfig
from sat_jax.models.transformer import init_variables
from sat_jax.streaming.framing import Framing
from sat_jax.streaming.pieces import Variables, plan_pieces

FLOAT_BYTES = 4
OUTPUTS_PER_TOKEN = 18
"""Widths of all that a block makes of a token, were nothing freed: norm1 1, qkv 3, attention 1,
proj 1, sum 1, norm2 1, fc1 4, GELU 4, fc2 1, sum 1."""
OUTPUTS_PER_CACHED_TOKEN = 3
"""The same for a cached token that is projected again: norm1 1, keys and values 2."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tokens:
    """Patches that one step hears; a cls token is none of them.

    Attributes:
      new: of the chunk.
      cached: of the past, in every layer.
    """

    new: int
    cached: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class MultiplyAdds:
    """Multiply-adds of all matrix products of a step, for one stream.

    Attributes:
      patch_embedding: patches to tokens.
      qkv: queries, keys and values of new tokens.
      cached_kv: keys and values of cached tokens, in layer 0 only: the others keep theirs.
      attention_new: weights and weighted sums over new tokens.
      attention_cached: the same over cached tokens.
      projection: behind attention.
      mlp: both layers.
      head: the classifier.
      front_end: the mel filterbank.
      spared: projection and MLP of the last block for all but the cls token with "token" pooling,
        which need not be done: in no sum but the published one.
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
        """Of layers with weights, on new tokens."""
        return self.patch_embedding + self.qkv + self.projection + self.mlp + self.head

    @property
    def published(self) -> int:
        """What the published GFLOPs count: of layers with weights, on all new tokens."""
        return self.linear + self.spared

    @property
    def network(self) -> int:
        """Of the network: all but the front end."""
        return self.linear + self.cached_kv + self.attention_new + self.attention_cached

    @property
    def total(self) -> int:
        """Of the step."""
        return self.network + self.front_end


def count_tokens(config: ModelConfig, framing: Framing) -> Tokens:
    """The tokens of a step that completes a chunk.

    Args:
      config: the model.
      framing: how its streams are cut into chunks, kind "chunk".
    """
    columns = sum(_columns(config, framing))
    return Tokens(new=config.freq_patches * columns, cached=config.cache_tokens)


def count_multiply_adds(config: ModelConfig, framing: Framing) -> MultiplyAdds:
    """The matrix products of a step that completes a chunk, the cache in keys and values.

    Full or empty, the cache costs the same: what is not there yet is masked.

    Args:
      config: the model.
      framing: how its streams are cut into chunks, kind "chunk".
    """
    pieces = [_count_piece(config, columns) for columns in _columns(config, framing)]
    network = {name: sum(piece[name] for piece in pieces) for name in pieces[0]}
    frontend = config.frontend
    bins = frontend.n_fft // 2 + 1
    frames = frontend.num_frames(framing.hop)
    return MultiplyAdds(front_end=frames * bins * frontend.n_mels, **network)


def _count_piece(config: ModelConfig, columns: int) -> dict[str, int]:
    width, depth, cached = config.width, config.depth, config.cache_tokens
    patches = config.freq_patches * columns
    has_cls = config.pooling == "token"
    tokens = patches + has_cls
    # Of the last block, what the cls token does not need is not done.
    asked = (depth - 1) * tokens + (1 if has_cls else tokens)
    behind_attention = {
        "projection": width**2,
        "mlp": 2 * width * int(width * config.mlp_ratio),
    }
    answers = columns if config.pooling == "dm" else 1
    return {
        "patch_embedding": patches * PATCH_SIZE**2 * width,
        "qkv": depth * tokens * 3 * width**2,
        "cached_kv": cached * 2 * width**2,
        "attention_new": asked * 2 * tokens * width,
        "attention_cached": asked * 2 * cached * width,
        **{name: asked * count for name, count in behind_attention.items()},
        "head": answers * width * config.num_classes,
        "spared": (depth * tokens - asked) * sum(behind_attention.values()),
    }


def _columns(config: ModelConfig, framing: Framing) -> list[int]:
    """Time columns of the patch grid of every piece of a chunk."""
    plan = plan_pieces(config, config.frontend.num_frames(framing.hop))
    lengths = [plan.length] * plan.num_whole + ([plan.padded] if plan.rest else [])
    return [min(length // PATCH_SIZE, config.time_positions) for length in lengths]


def variable_shapes(config: ModelConfig) -> Variables:
    """The weights' shapes and types, none of them made."""
    return jax.eval_shape(functools.partial(init_variables, config), jax.random.key(0))


def count_parameters(config: ModelConfig) -> int:
    """Trainable numbers of a model."""
    return sum(leaf.size for leaf in jax.tree.leaves(variable_shapes(config)["params"]))


def cached_kv_of_all_layers(config: ModelConfig) -> int:
    """Multiply-adds of projecting the cached tokens of every layer again, as was published."""
    return config.depth * config.cache_tokens * 2 * config.width**2


def bytes_of_all_outputs(config: ModelConfig, tokens: Tokens) -> int:
    """What the blocks' outputs take in float32 if none is freed; without attention's weights."""
    widths = OUTPUTS_PER_TOKEN * tokens.new + OUTPUTS_PER_CACHED_TOKEN * tokens.cached
    return config.depth * config.width * widths * FLOAT_BYTES
