"""The audio transformer: a ViT over log-mel patches that may look into a past.

Without a past it is the clip model ("Streaming Audio Transformers for Online Audio Tagging",
arXiv 2305.17834, section 2.1); with one it is a step of the streaming model (section 2.2). Both
have the same weights, so a clip model's can start a streaming one.
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from sat_jax.config import PATCH_SIZE, ModelConfig
from sat_jax.models.cache import Cache, Past, TokenPast, WindowPast, append_past, init_cache
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

# (offset, scale) of the published inputs without BatchNorm: (x + offset) / scale.
FIXED_NORMS = {64: (10.0, 40.0), 128: (14.27, 41.58)}

INPUT_NORM_MOMENTUM = 0.99
"""Share of the running statistics that one training step keeps; 0.01 in PyTorch's sense."""


class AudioTransformer(nn.Module):
    """One piece of a log-mel spectrogram in, class scores and the new past out."""

    config: ModelConfig

    def setup(self) -> None:
        """Declares the parts under their published names."""
        config = self.config
        width, dtype = config.width, config.dtype
        if config.input_norm == "batch":
            self.input_norm = nn.BatchNorm(
                momentum=INPUT_NORM_MOMENTUM, epsilon=1e-5, use_fast_variance=False
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
        self, log_mel: jax.Array, cache: Cache, *, train: bool = False
    ) -> tuple[jax.Array, Cache]:
        """Scores one piece, or in training several pieces of each recording at once.

        Args:
          log_mel: float32 [b, f, t], normalised; t >= 16, leftover frames (t mod 16) and frames
            behind the last position are not used. In training [b k, f, t]: k pieces in a row of
            each recording, one recording after the other.
          cache: what came before, from `init_cache` or an earlier call, for b recordings. In
            training it may lack the past, which is then empty.
          train: whether dropout, stochastic depth and patchout act.

        Returns:
          float32 [b, y] or [b k, y]: probabilities, or logits where the config pools to "logit";
          and the new cache.
        """
        grid = self.drop_patches(self.embed(log_mel), train)
        features, cache = self.features(grid, cache, train=train)
        return self.scores(features, grid.shape[1]), cache

    def normalize(self, log_mel: jax.Array, *, train: bool = False) -> jax.Array:
        """Input normalisation over all frames of a recording, before it is cut into pieces.

        Args:
          log_mel: float32 dB [b, f, t].
          train: whether batch statistics are used (and recorded in ``batch_stats``).

        Returns:
          float32 [b, f, t].
        """
        if self.config.input_norm == "batch":
            by_band = self.input_norm(log_mel.swapaxes(1, 2), use_running_average=not train)
            return by_band.swapaxes(1, 2)
        offset, scale = FIXED_NORMS[self.config.frontend.n_mels]
        return (log_mel + offset) / scale

    def embed(self, log_mel: jax.Array) -> jax.Array:
        """Patch tokens with their positions: [b, f', t'] -> [b, f, t, d]."""
        columns = self.config.time_positions * PATCH_SIZE
        grid = self.patch_embed(patches(log_mel[..., :columns]))
        grid = grid + self.time_pos_embed[: grid.shape[2]].astype(grid.dtype)
        return grid + self.freq_pos_embed[:, None].astype(grid.dtype)

    def drop_patches(self, grid: jax.Array, train: bool) -> jax.Array:
        """Patchout: one random choice of rows and columns to keep for the whole batch."""
        if not train:
            return grid
        for axis, share in ((2, self.config.time_patchout), (1, self.config.freq_patchout)):
            drop = int(grid.shape[axis] * share)
            if drop:
                order = jax.random.permutation(self.make_rng("patchout"), grid.shape[axis])
                grid = jnp.take(grid, jnp.sort(order[drop:]), axis=axis)
        return grid

    def features(
        self, grid: jax.Array, cache: Cache, *, train: bool = False
    ) -> tuple[jax.Array, Cache]:
        """Tokens after the last block and norm.

        Args:
          grid: [b, f, t, d] from `embed`.
          cache: what came before.
          train: whether dropout and stochastic depth act.

        Returns:
          [b, n, d], n = f * t (frequency-major), or with "token" pooling [b, 1, d], the cls token
          alone; and the new cache.
        """
        tokens = self.position_dropout(flatten_grid(grid), deterministic=not train)
        num_out = 1 if self.config.pooling == "token" else None
        return self.encode(self.prepend_cls(tokens), cache, train=train, num_out=num_out)

    def prepend_cls(self, tokens: jax.Array) -> jax.Array:
        """[b, n, d] -> [b, n + 1, d] with "token" pooling, else unchanged."""
        if self.config.pooling != "token":
            return tokens
        cls = (self.cls_token + self.token_pos_embed).astype(tokens.dtype)
        cls = jnp.broadcast_to(cls, (tokens.shape[0], 1, tokens.shape[2]))
        return jnp.concatenate([cls, tokens], axis=1)

    def encode(
        self, tokens: jax.Array, cache: Cache, *, train: bool = False, num_out: int | None = None
    ) -> tuple[jax.Array, Cache]:
        """All blocks and the last norm.

        Args:
          tokens: [b, n, d].
          cache: what came before.
          train: whether dropout and stochastic depth act.
          num_out: how many of the first tokens are wanted; None means all n. The last block then
            spares itself what only the others need.

        Returns:
          [b, num_out, d], and the new cache.
        """
        wanted = [None] * (self.config.depth - 1) + [num_out]
        if train and self.config.is_streaming:
            return self._encode_together(tokens, cache, wanted)
        if not cache.past:
            for block, num_out in zip(self.blocks, wanted, strict=True):
                tokens, _ = block(tokens, None, None, train, num_out)
            return self.norm(tokens), cache
        past: list[Past] = list(jax.lax.stop_gradient(cache.past))
        past[0] = self.add_past_positions(past[0], cache.num_real)
        key_is_real = visible_keys(cache.num_real, cache.room, tokens.shape[1])
        # Quirk: a cls token is cached like any other. It only stays where a chunk has fewer
        # tokens than the cache, being the first of its piece.
        num_real = jnp.minimum(cache.num_real + tokens.shape[1], self.config.cache_tokens)
        for i, (block, num_out) in enumerate(zip(self.blocks, wanted, strict=True)):
            tokens, past[i] = block(  # type: ignore[assignment]
                tokens, past[i], key_is_real, train, num_out
            )
        return self.norm(tokens), Cache(tuple(past), num_real)

    def _encode_together(
        self, tokens: jax.Array, cache: Cache, wanted: Sequence[int | None]
    ) -> tuple[jax.Array, Cache]:
        """`encode` on k pieces in a row, of which each block gives as many tokens as are wanted.

        [b k, n, d] -> [b k, num_out, d], and the cache after the last piece.

        What a piece finds in a layer's cache is what entered that layer in the pieces before, and
        no gradient goes there: so layers have to wait for each other, but pieces don't.
        """
        batch_size, (num_new, width) = len(cache.num_real), tokens.shape[1:]
        room, num_pieces = self.config.cache_tokens, len(tokens) // batch_size
        num_real = [jnp.minimum(cache.num_real + i * num_new, room) for i in range(num_pieces + 1)]
        key_is_real = visible_keys(jnp.stack(num_real[:-1], axis=1).ravel(), room, num_new)
        past = list(cache.past or init_cache(self.config, batch_size, "tokens").past)
        for i, block in enumerate(self.blocks):
            pieces = tokens.reshape(batch_size, num_pieces, num_new, width)
            (before,) = jax.lax.stop_gradient(past[i])
            found: Past | WindowPast
            if i == 0:
                pasts, past[i] = self._walk_first_layer(pieces, before, num_real)
                # Where a window starts there is nothing to find, and no work to be done on it.
                pasts = pasts[:, 0 if cache.past else 1 :]
                found = TokenPast(pasts.reshape(-1, room, width))
            else:
                found = WindowPast(before if cache.past else None, num_pieces)
                line = pieces.reshape(batch_size, -1, width)
                past[i] = TokenPast(append_past(before, line))
            tokens, _ = block(tokens, found, key_is_real, True, wanted[i])
        return self.norm(tokens), Cache(tuple(past), num_real[-1])

    def _walk_first_layer(
        self, pieces: jax.Array, past: jax.Array, num_real: Sequence[jax.Array]
    ) -> tuple[jax.Array, TokenPast]:
        """What each of the pieces [b, k, n, d] finds [b, k, m, d], and the past after the last."""
        found = []
        for j in range(pieces.shape[1]):
            kept = TokenPast(jax.lax.stop_gradient(past))
            found.append(self.add_past_positions(kept, num_real[j]).tokens)
            past = append_past(found[j], pieces[:, j])
        return jnp.stack(found, axis=1), TokenPast(past)

    def add_past_positions(self, past: Past, num_real: jax.Array) -> TokenPast:
        """Quirk: layer 0's cached tokens get positions anew at every call, and keep them."""
        assert isinstance(past, TokenPast), "layer 0 keeps tokens in every form of cache"
        positions = past_positions(
            self.time_pos_embed, self.freq_pos_embed, num_real, past.tokens.shape[1]
        )
        return TokenPast(past.tokens + positions.astype(past.tokens.dtype))

    def scores(self, features: jax.Array, rows: int) -> jax.Array:
        """Pools tokens and classifies: [b, n, d] with `rows` frequency rows -> float32 [b, y]."""
        pooling = self.config.pooling
        if pooling == "dm":
            by_time = features.reshape(features.shape[0], rows, -1, features.shape[-1]).mean(1)
            return nn.sigmoid(self.logits(by_time)).mean(1)
        pooled = features[:, 0] if pooling == "token" else features.mean(1)
        logits = self.logits(pooled)
        return logits if pooling == "logit" else nn.sigmoid(logits)

    def logits(self, features: jax.Array) -> jax.Array:
        """The classifier: [..., d] -> float32 [..., y]."""
        return self.head(self.head_norm(features)).astype(jnp.float32)


def flatten_grid(grid: jax.Array) -> jax.Array:
    """[b, f, t, d] -> [b, f * t, d], frequency-major as published."""
    return grid.reshape(grid.shape[0], -1, grid.shape[-1])


def visible_keys(num_real: jax.Array, room: int, num_new: int) -> jax.Array:
    """Mask bool [b, room + num_new]: the cache's real tokens (its newest slots) and all new."""
    real = jnp.arange(room)[None, :] >= room - num_real[:, None]
    new = jnp.ones((real.shape[0], num_new), bool)
    return jnp.concatenate([real, new], axis=1)


def init_variables(config: ModelConfig, key: jax.Array) -> Any:
    """Fresh weights: {"params": …} and, with BatchNorm, {"batch_stats": …}.

    Args:
      config: the model.
      key: a `jax.random.key`.
    """
    shortest = jnp.zeros((1, config.frontend.n_mels, PATCH_SIZE))
    cache = Cache((), jnp.zeros((1,), jnp.int32))
    return AudioTransformer(config).init(
        key, shortest, cache, method=lambda net, x, past: net(net.normalize(x), past)
    )
