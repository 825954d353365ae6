"""The masked autoencoder, for pretraining without labels."""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from sat_jax.config import PATCH_SIZE, MaeConfig, ModelConfig
from sat_jax.errors import SatError
from sat_jax.models.cache import Cache
from sat_jax.models.layers import (
    BLOCK_EPSILON,
    HEAD_EPSILON,
    POSITION_INIT,
    Block,
    Linear,
    layer_norm,
    patches,
)
from sat_jax.models.transformer import AudioTransformer, flatten_grid

PATCH_VALUES = PATCH_SIZE * PATCH_SIZE


class Masking(NamedTuple):
    """Which patches are masked.

    Attributes:
      kept: int32 [b, n'], indices of the patches that the encoder gets, in that order.
      restore: int32 [b, n], index of each patch in the list of kept, then masked patches.
      mask: float32 [b, n], 1 where masked.
    """

    kept: jax.Array
    restore: jax.Array
    mask: jax.Array


def masking_from_noise(noise: jax.Array, mask_ratio: float) -> Masking:
    """Keeps the int(n * (1 - mask_ratio)) patches with the lowest noise in each example.

    Args:
      noise: float32 [b, n] in [0, 1).
      mask_ratio: share of patches to mask.
    """
    num_patches = noise.shape[1]
    num_kept = int(num_patches * (1.0 - mask_ratio))
    order = jnp.argsort(noise, axis=1)
    restore = jnp.argsort(order, axis=1)
    return Masking(order[:, :num_kept], restore, (restore >= num_kept).astype(jnp.float32))


class Decoder(nn.Module):
    """Predicts all patches from the tokens of the kept ones."""

    config: MaeConfig

    def setup(self) -> None:
        """Declares the parts under their published names."""
        config, width = self.config, self.config.decoder_width
        dtype = config.encoder.dtype
        blocks = ModelConfig(
            width=width, depth=config.decoder_depth, target_length=PATCH_SIZE, dtype=dtype
        )
        self.input_proj = Linear(width, dtype)
        self.mask_token = self.param("mask_token", POSITION_INIT, (width,))
        self.pos_embed = self.param(
            "pos_embed", nn.initializers.zeros, (config.num_patches + 1, width)
        )
        self.blocks = [Block(blocks, 0.0) for _ in range(config.decoder_depth)]
        self.norm = layer_norm(BLOCK_EPSILON, dtype)
        self.head_norm = layer_norm(HEAD_EPSILON, dtype)
        self.head = Linear(PATCH_VALUES, dtype)

    def __call__(self, tokens: jax.Array, restore: jax.Array) -> jax.Array:
        """Maps tokens [b, 1 + n', d], cls first, and `restore` [b, n] to float32 [b, n, 256]."""
        tokens = self.input_proj(tokens)
        cls, seen = tokens[:, :1], tokens[:, 1:]
        batch, num_patches = restore.shape
        hidden = jnp.broadcast_to(
            self.mask_token.astype(seen.dtype),
            (batch, num_patches - seen.shape[1], seen.shape[2]),
        )
        shuffled = jnp.concatenate([seen, hidden], axis=1)
        patches_in_place = jnp.take_along_axis(shuffled, restore[..., None], axis=1)
        tokens = jnp.concatenate([cls, patches_in_place], axis=1)
        tokens = tokens + self._positions(num_patches).astype(tokens.dtype)
        for block in self.blocks:
            tokens, _ = block(tokens)
        tokens = self.head(self.head_norm(self.norm(tokens)))
        return tokens[:, 1:].astype(jnp.float32)

    def _positions(self, num_patches: int) -> jax.Array:
        """Returns positions [1 + n, d]; a shorter input uses the first columns of the grid."""
        rows = self.config.encoder.freq_patches
        cls, grid = (
            self.pos_embed[:1],
            self.pos_embed[1:].reshape(rows, -1, self.pos_embed.shape[-1]),
        )
        grid = grid[:, : num_patches // rows]
        return jnp.concatenate([cls, grid.reshape(num_patches, -1)])


class MaskedAutoencoder(nn.Module):
    """Masks most patches of a log-mel spectrogram and predicts them."""

    config: MaeConfig

    def setup(self) -> None:
        """Declares encoder and decoder."""
        self.encoder = AudioTransformer(self.config.encoder)
        self.decoder = Decoder(self.config)

    def __call__(
        self, log_mel: jax.Array, noise: jax.Array, *, train: bool = False
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Predicts the masked patches.

        Args:
          log_mel: float32 dB [b, f, t], not normalised; frames after the encoder's target length
            are ignored.
          noise: float32 [b, n] in [0, 1), one value per patch; the lowest are kept.
          train: whether dropout acts and BatchNorm uses the batch's statistics.

        Returns:
          Prediction and target float32 [b, n, 256] and mask [b, n], 1 where masked.

        Raises:
          SatError: `noise` does not have one value per patch.
        """
        encoder = self.encoder
        columns = self.config.encoder.time_positions * PATCH_SIZE
        target = flatten_grid(patches(log_mel[..., :columns]))
        if noise.shape != target.shape[:2]:
            raise SatError(
                f"noise has shape {list(noise.shape)}: use {list(target.shape[:2])}, one per patch"
            )
        masking = masking_from_noise(noise, self.config.mask_ratio)
        tokens = flatten_grid(encoder.embed(encoder.normalize(log_mel, train=train)))
        seen = jnp.take_along_axis(tokens, masking.kept[..., None], axis=1)
        no_past = Cache((), jnp.zeros((log_mel.shape[0],), jnp.int32))
        encoded, _ = encoder.encode(encoder.prepend_cls(seen), no_past, train=train)
        return self.decoder(encoded, masking.restore), target, masking.mask


def init_mae_variables(config: MaeConfig, key: jax.Array) -> Any:
    """Returns fresh weights {"params": …, "batch_stats": …} of an autoencoder.

    Args:
      config: the model.
      key: a `jax.random.key`.
    """
    encoder = config.encoder
    log_mel = jnp.zeros((1, encoder.frontend.n_mels, encoder.time_positions * PATCH_SIZE))
    noise = jnp.zeros((1, config.num_patches))
    return MaskedAutoencoder(config).init(key, log_mel, noise)
