"""The named models."""

import dataclasses

from sat_jax.config import MaeConfig, ModelConfig, Pooling
from sat_jax.errors import SatError


def _vit(width: int, *, pooling: Pooling = "mean", depth: int = 12) -> ModelConfig:
    return ModelConfig(width=width, depth=depth, pooling=pooling, target_length=1012, pad_last=True)


def _sat(width: int, length: int, *, pooling: Pooling = "mean", depth: int = 12) -> ModelConfig:
    return ModelConfig(
        width=width, depth=depth, pooling=pooling, target_length=length, cache_length=length
    )


# The XS models are ours, for small devices: at most 2 M parameters at any length.
MODELS: dict[str, ModelConfig] = {
    "audiotransformer_xs": _vit(128, depth=9),
    "audiotransformer_tiny": _vit(192),
    "audiotransformer_small": _vit(384, pooling="token"),
    "audiotransformer_base": _vit(768),
    "SAT_XS_2s": _sat(128, 192, depth=9),
    "SAT_XS_1s": _sat(128, 96, depth=9),
    "SAT_T_2s": _sat(192, 192),
    "SAT_T_1s": _sat(192, 96),
    "SAT_S_2s": _sat(384, 192, pooling="token"),
    # Quirk: published with the lengths of the 2 s model.
    "SAT_S_1s": _sat(384, 192, pooling="token"),
    "SAT_B_2s": _sat(768, 192),
    "SAT_B_1s": _sat(768, 96),
}
"""Clip and streaming models: the nine published ones and three extra-small ones."""


def _mae(name: str, target_length: int, decoder_depth: int) -> MaeConfig:
    encoder = dataclasses.replace(MODELS[name], pooling="token", target_length=target_length)
    return MaeConfig(encoder=encoder, decoder_depth=decoder_depth)


MAES: dict[str, MaeConfig] = {
    "mae_xs": _mae("audiotransformer_xs", 1000, 4),
    "mae_tiny": _mae("audiotransformer_tiny", 1000, 4),
    "mae_small": _mae("audiotransformer_small", 1000, 8),
    "mae_base": _mae("audiotransformer_base", 1012, 8),
}
"""Masked autoencoders, by the size of the model whose encoder they pretrain."""


def model_config(name: str) -> ModelConfig:
    """Returns the config of a named model.

    Raises:
      SatError: no model has this name.
    """
    if name not in MODELS:
        raise SatError(f"unknown model {name!r}: use one of {', '.join(MODELS)}")
    return MODELS[name]
