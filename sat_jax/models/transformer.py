"""The audio transformer: a ViT over log-mel patches that may look into a past.

Without a past it is the clip model ("Streaming Audio Transformers for Online Audio Tagging",
arXiv 2305.17834, section 2.1); with one it is a step of the streaming model (section 2.2). Both
have the same weights, so a clip model's can start a streaming one.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from sat_jax.config import PATCH_SIZE, ModelConfig
from sat_jax.models.cache import Cache, Past, TokenPast
from sat_jax.models.layers import (
    BLOCK_EPSILON,
    CLS_INIT,
    HEAD_EPSILON,
    POSITION_INIT,
    Block,
    Linear,
    layer_norm,
    patches,
)
from sat_jax.models.positions import past_positions

FIXED_NORMS = {64: (10.0, 40.0), 128: (14.27, 41.58)}
"""(offset, scale) of inputs without BatchNorm, by mel bands: (x + offset) / scale, as published."""

INPUT_NORM_EPSILON = 1e-5
INPUT_NORM_MOMENTUM = 0.99
"""Share of the running statistics that one training step keeps; 0.01 in PyTorch's sense."""


class AudioTransformer(nn.Module):
    """Maps a piece of a log-mel spectrogram and a cache to class scores and the new cache.

    Attributes:
      config: the model.
      embeds: whether the pooled features, [b, d], follow the scores: [b, y + d] in all.
    """

    config: ModelConfig
    embeds: bool = False

    def setup(self) -> None:
        """Declares the parts under their published names."""
        config = self.config
        width, dtype = config.width, config.dtype
        if config.input_norm == "batch":
            self.input_norm = nn.BatchNorm(
                momentum=INPUT_NORM_MOMENTUM,
                epsilon=INPUT_NORM_EPSILON,
                use_fast_variance=False,
            )
        self.patch_embed = Linear(width, dtype)
        self.time_pos_embed = self.param(
            "time_pos_embed", POSITION_INIT, (config.time_positions, width)
        )
        self.freq_pos_embed = self.param(
            "freq_pos_embed", POSITION_INIT, (config.freq_patches, width)
        )
        if config.pooling == "token":
            self.cls_token = self.param("cls_token", CLS_INIT, (width,))
            self.token_pos_embed = self.param("token_pos_embed", POSITION_INIT, (width,))
        self.position_dropout = nn.Dropout(config.dropout)
        block = nn.remat(Block, static_argnums=(4, 5)) if config.remat else Block
        last = max(config.depth - 1, 1)
        self.blocks = [block(config, config.drop_path * i / last) for i in range(config.depth)]
        self.norm = layer_norm(BLOCK_EPSILON, dtype)
        self.head_norm = layer_norm(HEAD_EPSILON, dtype)
        self.head = Linear(config.num_classes, dtype)

    def __call__(
        self,
        log_mel: jax.Array,
        cache: Cache,
        *,
        num_columns: jax.Array | None = None,
        train: bool = False,
    ) -> tuple[jax.Array, Cache]:
        """Scores one piece.

        Args:
          log_mel: float32 [b, f, t], normalised; t >= 16. Leftover frames (t mod 16) and frames
            after the last position are not used.
          cache: from `init_cache` or the call on the piece before. It gets no gradients.
          num_columns: int32 [b], time patches of each piece, at least 1; the later ones change
            nothing but the new cache. None means all.
          train: whether dropout, stochastic depth and patchout act.

        Returns:
          float32 [b, y], probabilities, or logits with "logit" pooling, and with ``embeds`` [b, d]
          behind them; and the new cache.
        """
        grid = self.drop_patches(self.embed(log_mel), train)
        rows, columns = grid.shape[1:3]
        is_real = None if num_columns is None else jnp.arange(columns) < num_columns[:, None]
        features, cache = self.features(grid, cache, is_real, train=train)
        scores = self.scores(features, rows, is_real)
        if self.embeds:
            pooled = self.pool(features, rows, is_real).astype(jnp.float32)
            scores = jnp.concatenate([scores, pooled], axis=-1)
        return scores, cache

    def normalize(self, log_mel: jax.Array, *, train: bool = False) -> jax.Array:
        """Normalises a whole spectrogram, before it is cut into pieces.

        Args:
          log_mel: float32 dB [b, f, t].
          train: whether batch statistics are used, and recorded in ``batch_stats``.

        Returns:
          float32 [b, f, t].
        """
        if self.config.input_norm == "batch":
            by_band = self.input_norm(log_mel.swapaxes(1, 2), use_running_average=not train)
            return by_band.swapaxes(1, 2)
        offset, scale = FIXED_NORMS[self.config.frontend.n_mels]
        return (log_mel + offset) / scale

    def embed(self, log_mel: jax.Array) -> jax.Array:
        """Returns patch tokens with their positions: [b, f', t'] -> [b, f, t, d]."""
        columns = self.config.time_positions * PATCH_SIZE
        grid = self.patch_embed(patches(log_mel[..., :columns]))
        grid = grid + self.time_pos_embed[: grid.shape[2]].astype(grid.dtype)
        return grid + self.freq_pos_embed[:, None].astype(grid.dtype)

    def drop_patches(self, grid: jax.Array, train: bool) -> jax.Array:
        """Patchout: drops the same random rows and columns for the whole batch."""
        if not train:
            return grid
        for axis, share in ((2, self.config.time_patchout), (1, self.config.freq_patchout)):
            drop = int(grid.shape[axis] * share)
            if drop:
                order = jax.random.permutation(self.make_rng("patchout"), grid.shape[axis])
                grid = jnp.take(grid, jnp.sort(order[drop:]), axis=axis)
        return grid

    def features(
        self,
        grid: jax.Array,
        cache: Cache,
        is_real: jax.Array | None = None,
        *,
        train: bool = False,
    ) -> tuple[jax.Array, Cache]:
        """Returns the tokens after the last block and norm.

        Args:
          grid: [b, f, t, d] from `embed`.
          cache: see `__call__`.
          is_real: bool [b, t], the time patches to attend to; None means all.
          train: whether dropout and stochastic depth act.

        Returns:
          [b, n, d], n = f * t (frequency-major), or with "token" pooling only the cls token
          [b, 1, d]; and the new cache.
        """
        tokens = self.position_dropout(flatten_grid(grid), deterministic=not train)
        has_cls = self.config.pooling == "token"
        if is_real is not None:
            is_real = jnp.tile(is_real, grid.shape[1])
            is_real = jnp.pad(is_real, ((0, 0), (int(has_cls), 0)), constant_values=True)
        num_out = 1 if has_cls else None
        return self.encode(self.prepend_cls(tokens), cache, is_real, train=train, num_out=num_out)

    def prepend_cls(self, tokens: jax.Array) -> jax.Array:
        """[b, n, d] -> [b, n + 1, d] with "token" pooling, else unchanged."""
        if self.config.pooling != "token":
            return tokens
        cls = (self.cls_token + self.token_pos_embed).astype(tokens.dtype)
        cls = jnp.broadcast_to(cls, (tokens.shape[0], 1, tokens.shape[2]))
        return jnp.concatenate([cls, tokens], axis=1)

    def encode(
        self,
        tokens: jax.Array,
        cache: Cache,
        is_real: jax.Array | None = None,
        *,
        train: bool = False,
        num_out: int | None = None,
    ) -> tuple[jax.Array, Cache]:
        """Runs all blocks and the last norm.

        Args:
          tokens: [b, n, d].
          cache: see `__call__`.
          is_real: bool [b, n], the tokens to attend to; None means all.
          train: whether dropout and stochastic depth act.
          num_out: number of tokens to return, the first ones; None means all n. The last block
            skips the work that only the others need.

        Returns:
          [b, num_out, d], and the new cache.
        """
        outputs = [None] * (self.config.depth - 1) + [num_out]
        if not cache.past:
            for block, num_out in zip(self.blocks, outputs, strict=True):
                tokens, _ = block(tokens, None, is_real, train, num_out)
            return self.norm(tokens), cache
        past: list[Past] = list(jax.lax.stop_gradient(cache.past))
        past[0] = self.add_past_positions(past[0], cache.num_real)
        key_is_real = visible_keys(cache.num_real, cache.room, tokens.shape[1])
        if is_real is not None:
            key_is_real = jnp.concatenate([key_is_real[:, : cache.room], is_real], axis=1)
        # Quirk: a cls token is cached like any other. As the first token of its piece, it only
        # stays in the cache where a chunk has fewer tokens than the cache.
        num_real = jnp.minimum(cache.num_real + tokens.shape[1], self.config.cache_tokens)
        for i, (block, num_out) in enumerate(zip(self.blocks, outputs, strict=True)):
            tokens, past[i] = block(  # type: ignore[assignment]
                tokens, past[i], key_is_real, train, num_out
            )
        return self.norm(tokens), Cache(tuple(past), num_real)

    def add_past_positions(self, past: Past, num_real: jax.Array) -> TokenPast:
        """Adds positions to layer 0's cached tokens. Quirk: at every call once more."""
        assert isinstance(past, TokenPast), "layer 0 keeps tokens in every form of cache"
        positions = past_positions(
            self.time_pos_embed, self.freq_pos_embed, num_real, past.tokens.shape[1]
        )
        return TokenPast(past.tokens + positions.astype(past.tokens.dtype))

    def scores(self, features: jax.Array, rows: int, is_real: jax.Array | None = None) -> jax.Array:
        """Pools and classifies tokens.

        Args:
          features: [b, n, d] from `features`.
          rows: frequency rows of the tokens.
          is_real: bool [b, t], the time patches to pool; None means all.

        Returns:
          float32 [b, y].
        """
        if self.config.pooling == "dm":
            by_time = mean_over_rows(features, rows)
            return mean_over_time(nn.sigmoid(self.logits(by_time)), is_real)
        logits = self.logits(self.pool(features, rows, is_real))
        return logits if self.config.pooling == "logit" else nn.sigmoid(logits)

    def pool(self, features: jax.Array, rows: int, is_real: jax.Array | None = None) -> jax.Array:
        """Returns the cls token with "token" pooling, else the mean of the tokens: [b, d].

        Args:
          features: [b, n, d] from `features`.
          rows: frequency rows of the tokens.
          is_real: bool [b, t], the time patches to pool; None means all.
        """
        if self.config.pooling == "token":
            return features[:, 0]
        if is_real is None:
            return features.mean(1)
        return mean_over_time(mean_over_rows(features, rows), is_real)

    def logits(self, features: jax.Array) -> jax.Array:
        """Applies the classifier: [..., d] -> float32 [..., y]."""
        return self.head(self.head_norm(features)).astype(jnp.float32)


def flatten_grid(grid: jax.Array) -> jax.Array:
    """Flattens a patch grid, frequency-major as published: [b, f, t, d] -> [b, f * t, d]."""
    return grid.reshape(grid.shape[0], -1, grid.shape[-1])


def mean_over_rows(features: jax.Array, rows: int) -> jax.Array:
    """Returns the mean of tokens over frequency: [b, n, d] -> [b, t, d]."""
    return features.reshape(features.shape[0], rows, -1, features.shape[-1]).mean(1)


def mean_over_time(x: jax.Array, is_real: jax.Array | None) -> jax.Array:
    """Returns the mean of [b, t, d] over the time patches where `is_real` [b, t], or over all."""
    if is_real is None:
        return x.mean(1)
    return jnp.mean(x, axis=1, where=is_real[:, :, None])


def visible_keys(num_real: jax.Array, room: int, num_new: int) -> jax.Array:
    """Returns bool [b, room + num_new]: the cache's real tokens, its last slots, and all new."""
    real = jnp.arange(room)[None, :] >= room - num_real[:, None]
    new = jnp.ones((real.shape[0], num_new), bool)
    return jnp.concatenate([real, new], axis=1)


def init_variables(config: ModelConfig, key: jax.Array) -> Any:
    """Returns fresh weights: {"params": …} and, with BatchNorm, {"batch_stats": …}.

    Args:
      config: the model.
      key: a `jax.random.key`.
    """
    shortest = jnp.zeros((1, config.frontend.n_mels, PATCH_SIZE))
    cache = Cache((), jnp.zeros((1,), jnp.int32))
    return AudioTransformer(config).init(
        key, shortest, cache, method=lambda net, x, past: net(net.normalize(x), past)
    )
