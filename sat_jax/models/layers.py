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
from sat_jax.models.cache import KVPast, Past, TokenPast, append_past
from sat_jax.models.linear import Linear
from sat_jax.models.portable import erf

POSITION_INIT = nn.initializers.normal(0.02)
CLS_INIT = nn.initializers.normal(1e-6)
BLOCK_EPSILON = 1e-6
HEAD_EPSILON = 1e-5


# Compiled as a function of its own for the sake of its gradient, whose parts are then summed before
# they join that of the residual stream. Otherwise XLA for CPUs recomputes the stream's gradient for
# every use in every block: a training step took 1.4 times as long.
_LayerNorm = nn.jit(nn.LayerNorm)


def layer_norm(epsilon: float, dtype: str) -> nn.LayerNorm:
    """Returns a LayerNorm whose statistics are float32 whatever the compute type."""
    return _LayerNorm(epsilon=epsilon, dtype=jnp.dtype(dtype), use_fast_variance=False)


def patches(log_mel: jax.Array) -> jax.Array:
    """Cuts spectrograms into 16 x 16 patches and drops leftover frames.

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
    """Multi-head self-attention over new and past tokens."""

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
        """Attends from projected queries to projected keys and values.

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
    """Exact GELU by erf, as published; `nn.gelu` uses erfc, which takes 1.5 times as long."""
    return 0.5 * x * (1.0 + erf(x * 0.5**0.5))


class Mlp(nn.Module):
    """Two linear layers with an exact (erf) GELU between them."""

    config: ModelConfig

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Maps [b, n, d] -> [b, n, d]."""
        config = self.config
        dropout = nn.Dropout(config.dropout, deterministic=not train)
        x = Linear(int(config.width * config.mlp_ratio), config.dtype, name="fc1")(x)
        x = dropout(gelu(x))
        return dropout(Linear(config.width, config.dtype, name="fc2")(x))


class LayerScale(nn.Module):
    """A learned gain per feature; the identity if `initial` is None."""

    initial: float | None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Scales the features of [b, n, d]."""
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
        past: Past | None = None,
        key_is_real: jax.Array | None = None,
        train: bool = False,
        num_out: int | None = None,
    ) -> tuple[jax.Array, Past | None]:
        """Runs the block on the tokens of one piece.

        Args:
          x: [b, n, d], the residual stream.
          past: m tokens of the pieces before, or None.
          key_is_real: bool [b, m + n], the keys to attend to; needed with a past.
          train: whether dropout and stochastic depth act.
          num_out: number of tokens to return, the first ones; None means all n. The others serve
            as keys and values only.

        Returns:
          The residual stream [b, num_out, d], and the new past in the form and shape of `past`,
          or None without one.
        """
        query, kv = jnp.split(self.attn.qkv(self.norm1(x)), [self.config.width], axis=-1)
        keys, new_past = self._with_past(x, kv, past)
        mixed = self.mix(x, query, keys, key_is_real=key_is_real, train=train, num_out=num_out)
        return mixed, new_past

    def mix(
        self,
        x: jax.Array,
        query: jax.Array,
        keys: jax.Array,
        *,
        key_is_real: jax.Array | None,
        train: bool,
        num_out: int | None,
    ) -> jax.Array:
        """Runs the block after the projection of queries [b, n, d], keys and values."""
        x, query = x[:, :num_out], query[:, :num_out]
        attended = self.attn(query, keys, key_is_real=key_is_real, train=train)
        x = x + self.stochastic_depth(self.ls1(attended), deterministic=not train)
        mixed = self.mlp(self.norm2(x), train=train)
        return x + self.stochastic_depth(self.ls2(mixed), deterministic=not train)

    def _with_past(
        self, x: jax.Array, kv: jax.Array, past: Past | None
    ) -> tuple[jax.Array, Past | None]:
        """Returns keys and values of past and piece [b, m + n, 2 d], and the new past."""
        if past is None:
            return kv, None
        kept: Past
        if isinstance(past, KVPast):
            earlier, kept = past.kv, KVPast(append_past(past.kv, kv))
        else:
            earlier = self.attn.qkv(self.norm1(past.tokens), skip=self.config.width)
            kept = TokenPast(append_past(past.tokens, x))
        return jnp.concatenate([earlier, kv], axis=1), kept
