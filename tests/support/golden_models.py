"""The golden models as ours: config, network and weights (shared by tests)."""

import functools
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch

from sat_jax.config import MaeConfig, ModelConfig
from sat_jax.convert.weight_table import from_torch
from sat_jax.models.registry import MODELS
from tests.reference.torch_model import build
from tests.support.golden_weights import load_models, state_dict_by_rule

GOLDEN = Path(__file__).parents[1] / "golden"
SMALL = {n: m for n, m in load_models().items() if m.get("kind") in ("sat", "vit")}
SATS = [name for name, model in SMALL.items() if model["kind"] == "sat"]
VITS = [name for name, model in SMALL.items() if model["kind"] == "vit"]


def small_config(name: str, **changes: Any) -> ModelConfig:
    """Returns the config of a golden model, from its constructor's arguments."""
    model = SMALL[name]
    settings = {
        "width": model["embed_dim"],
        "depth": model["depth"],
        "num_classes": model["outputdim"],
        "pooling": model["pooling"],
        "target_length": model["target_length"],
        "cache_length": model.get("cache_length", 0),
        "input_norm": "batch" if model.get("init_bn", True) else "fixed",
        "layer_scale": model.get("init_values"),
        "pad_last": model["kind"] == "vit",
    }
    return ModelConfig(**(settings | changes))


def mae_config() -> MaeConfig:
    """Returns the golden autoencoder's config."""
    model = load_models()["mae"]
    encoder, decoder = model["encoder"], model["decoder"]
    return MaeConfig(
        encoder=ModelConfig(
            width=encoder["embed_dim"],
            depth=encoder["depth"],
            target_length=encoder["target_length"],
            pooling=encoder["pooling"],
            pad_last=True,
        ),
        decoder_width=decoder["embed_dim"],
        decoder_depth=decoder["depth"],
    )


@functools.cache
def small_weights(name: str) -> Any:
    """Returns a small golden model's variables."""
    model = load_models()[name]
    return from_torch(state_dict_by_rule(model["state_dict_shapes"], model["seed"]))


def full_size(name: str) -> tuple[ModelConfig, Any]:
    """Returns a registry model with the golden weights."""
    with torch.device("meta"):
        shapes = {key: value.shape for key, value in build(name).state_dict().items()}
    seed = load_models()["full_size"]["seed"]
    variables = from_torch(state_dict_by_rule(shapes, seed))
    return MODELS[name], variables


@functools.cache
def clip() -> np.ndarray:
    """Returns the golden recording, float32 [160000]."""
    return soundfile.read(GOLDEN / "clip.wav", dtype="float32")[0]


def numbers(name: str) -> Any:
    """Opens a golden .npz file."""
    return np.load(GOLDEN / f"{name}.npz")
