"""Transformer layers as thin Linen modules."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from sat_jax.config import PATCH_SIZE, ModelConfig
from sat_jax.models.attention import (
    attend,
    attention_weights,
    fused_attention,
    split_heads,
    suits_cudnn,
)
from sat_jax.models.cache import KVPast, Past, TokenPast, WindowPast, append_past
from sat_jax.models.linear import Linear, linear_twice

POSITION_INIT = nn.initializers.normal(0.02)
CLS_INIT = nn.initializers.normal(1e-6)
BLOCK_EPSILON = 1e-6
HEAD_EPSILON = 1e-5


# A function of its own for the sake of its gradient: thus the parts of it are added up before they
# join the residual stream's. Else XLA computes the stream's gradient, from the last block on, anew
# for every use in every block when it compiles for CPUs (a training step took 1.4 times as long).
_LayerNorm = nn.jit(nn.LayerNorm)


def layer_norm(epsilon: float, dtype: str, *, learned: bool = True) -> nn.LayerNorm:
    """LayerNorm, or without learned scale and bias its first half: zero mean, variance one.

    Statistics are float32 whatever the compute type.
    """
    return _LayerNorm(
        epsilon=epsilon,
        dtype=jnp.dtype(dtype),
        use_scale=learned,
        use_bias=learned,
        use_fast_variance=False,
    )


def patches(log_mel: jax.Array) -> jax.Array:
    """Cuts spectrograms into 16 x 16 patches; leftover frames are dropped.

    Args:
      log_mel: [b, 16 f, t'].

    Returns:
      [b, f, t, 256] with t = t' // 16; inside a patch values run mel bin by mel bin.
    """
    batch, bins, frames = log_mel.shape
    columns = frames // PATCH_SIZE
    grid = log_mel[..., : columns * PATCH_SIZE].reshape(
        batch, bins // PATCH_SIZE, PATCH_SIZE, columns, PATCH_SIZE
    )
    return grid.transpose(0, 1, 3, 2, 4).reshape(
        batch, bins // PATCH_SIZE, columns, PATCH_SIZE * PATCH_SIZE
    )


class Attention(nn.Module):
    """Multi-head self-attention whose keys may reach into a past."""

    config: ModelConfig

    def setup(self) -> None:
        """Declares the projections under the clip model's published names."""
        width, dtype = self.config.width, self.config.dtype
        self.qkv = Linear(3 * width, dtype)
        self.proj = Linear(width, dtype)
        self.weight_dropout = nn.Dropout(self.config.attention_dropout)
        self.dropout = nn.Dropout(self.config.dropout)

    def __call__(
        self, query: jax.Array, kv: jax.Array, *, key_is_real: jax.Array | None, train: bool
    ) -> jax.Array:
        """Attends from queries to keys and values, all projected.

        Args:
          query: [b, n, d].
          kv: [b, m, 2 d], keys then values.
          key_is_real: bool [b, m] or None, see `attention_weights`.
          train: whether dropout acts.

        Returns:
          [b, n, d].
        """
        query, key, value = (split_heads(x) for x in (query, *jnp.split(kv, 2, axis=-1)))
        if suits_cudnn(query, key) and not (train and self.config.attention_dropout):
            mixed = fused_attention(query, key, value, key_is_real)
        else:
            weights = attention_weights(query, key, key_is_real)
            mixed = attend(self.weight_dropout(weights, deterministic=not train), value)
        return self.dropout(self.proj(mixed), deterministic=not train)


def gelu(x: jax.Array) -> jax.Array:
    """Exact GELU by erf, as published; `nn.gelu` computes erfc, which takes 1.5 times as long."""
    return 0.5 * x * (1.0 + jax.lax.erf(x * 0.5**0.5))


class Mlp(nn.Module):
    """Two linear layers with an exact (erf) GELU between them."""

    config: ModelConfig

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """[b, n, d] -> [b, n, d]."""
        config = self.config
        dropout = nn.Dropout(config.dropout, deterministic=not train)
        x = Linear(int(config.width * config.mlp_ratio), config.dtype, name="fc1")(x)
        x = dropout(gelu(x))
        return dropout(Linear(config.width, config.dtype, name="fc2")(x))


class LayerScale(nn.Module):
    """A learned gain per feature, or nothing where the config asks for none."""

    initial: float | None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[b, n, d] -> [b, n, d]."""
        if self.initial is None:
            return x
        gamma = self.param("gamma", nn.initializers.constant(self.initial), x.shape[-1:])
        return x * gamma.astype(x.dtype)


class Block(nn.Module):
    """Pre-norm transformer block: x + ls1(attn(norm1(x))), then x + ls2(mlp(norm2(x)))."""

    config: ModelConfig
    drop_path: float

    def setup(self) -> None:
        """Declares the parts under their published names."""
        config = self.config
        self.norm1 = layer_norm(BLOCK_EPSILON, config.dtype)
        self.standardize = layer_norm(BLOCK_EPSILON, config.dtype, learned=False)
        self.attn = Attention(config)
        self.ls1 = LayerScale(config.layer_scale)
        self.norm2 = layer_norm(BLOCK_EPSILON, config.dtype)
        self.mlp = Mlp(config)
        self.ls2 = LayerScale(config.layer_scale)
        # One draw per example, the same for all its tokens and features.
        self.stochastic_depth = nn.Dropout(self.drop_path, broadcast_dims=(1, 2))

    def __call__(
        self,
        x: jax.Array,
        past: Past | WindowPast | None = None,
        key_is_real: jax.Array | None = None,
        train: bool = False,
        num_out: int | None = None,
    ) -> tuple[jax.Array, Past | None]:
        """Runs the block on the tokens of one piece.

        Args:
          x: [b, n, d], the residual stream.
          past: what came before, m tokens, or None. In training x may have rows for k pieces of
            each recording, one recording after the other: then it is what came before the window,
            or, piece by piece, it may leave out the rows of the first pieces, which have none.
          key_is_real: bool [b, m + n] when there is a past: which keys may be seen.
          train: whether dropout and stochastic depth act.
          num_out: how many of the first tokens are wanted, the others being only seen; None means
            all n.

        Returns:
          The residual stream [b, num_out, d] and the new past, of the same form and shape as
          `past`; None without one, and for several pieces at once.
        """
        new_past: Past | None = None
        if isinstance(past, WindowPast):
            query, keys = self._within_window(x, past)
        else:
            query, kv = self._split(self.attn.qkv(self.norm1(x)))
            keys, new_past = self._with_past(x, kv, past)
        x, query = x[:, :num_out], query[:, :num_out]
        attended = self.attn(query, keys, key_is_real=key_is_real, train=train)
        x = x + self.stochastic_depth(self.ls1(attended), deterministic=not train)
        mixed = self.mlp(self.norm2(x), train=train)
        return x + self.stochastic_depth(self.ls2(mixed), deterministic=not train), new_past

    def _split(self, qkv: jax.Array) -> list[jax.Array]:
        """Queries [..., d], and keys and values [..., 2 d]."""
        return jnp.split(qkv, [self.config.width], axis=-1)

    def _within_window(self, x: jax.Array, past: WindowPast) -> tuple[jax.Array, jax.Array]:
        """Queries of k pieces, and the keys and values [b k, m + n, 2 d] that each can see.

        A piece's keys and values are what the next one finds, so they need not be projected again
        for it. But gradients of what was found go to the weights alone, not to its tokens.
        """
        room, width = self.config.cache_tokens, self.config.width
        pieces = x.reshape(-1, past.num_pieces, *x.shape[1:])
        scale: jax.Array = self.norm1.get_variable("params", "scale")
        shift: jax.Array = self.norm1.get_variable("params", "bias")
        kernel, bias = self.attn.qkv.weights(width)
        # The norm's weights join the projection's: so what follows has all the weights, whose
        # gradients come both ways, and what it is given has none.
        bias = bias + jnp.matmul(kernel, shift, precision="highest")
        x_std = self.standardize(pieces)
        weights = [w.astype(x_std.dtype) for w in (kernel * scale, bias)]
        qkv, seen = linear_twice(x_std, *weights, width)
        query, kv = self._split(qkv)
        before = jnp.zeros((len(pieces), room, 2 * width), seen.dtype)
        if past.tokens is not None:
            before = self.attn.qkv(self.norm1(past.tokens), skip=width)
        line = jnp.concatenate([before, seen.reshape(len(pieces), -1, 2 * width)], axis=1)
        starts = [j * x.shape[1] for j in range(past.num_pieces)]
        found = jnp.stack([line[:, start : start + room] for start in starts], axis=1)
        keys = jnp.concatenate([found, kv], axis=2)
        return query.reshape(x.shape), keys.reshape(len(x), -1, 2 * width)

    def _with_past(
        self, x: jax.Array, kv: jax.Array, past: Past | None
    ) -> tuple[jax.Array, Past | None]:
        """Keys and values of past and piece [b, m + n, 2 d], and the past to keep."""
        if past is None:
            return kv, None
        kept: Past
        if isinstance(past, KVPast):
            earlier, kept = past.kv, KVPast(append_past(past.kv, kv))
        else:
            earlier = self.attn.qkv(self.norm1(past.tokens), skip=self.config.width)
            if len(earlier) < len(x):
                return jnp.concatenate([_before_pieces(earlier, len(x)), kv], axis=1), None
            kept = TokenPast(append_past(past.tokens, x))
        return jnp.concatenate([earlier, kv], axis=1), kept


def _before_pieces(earlier: jax.Array, rows: int) -> jax.Array:
    """Zeros for the first of the k pieces of each recording: [b (k - 1), ...] -> [b k, ...]."""
    batch_size = rows - len(earlier)
    by_recording = earlier.reshape(batch_size, rows // batch_size - 1, *earlier.shape[1:])
    padded = jnp.pad(by_recording, ((0, 0), (1, 0), (0, 0), (0, 0)))
    return padded.reshape(rows, *earlier.shape[1:])
