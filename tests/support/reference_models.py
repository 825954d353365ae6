"""The PyTorch models of `tests.reference` with golden weights, and their streams."""

import dataclasses
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from tests.reference.torch_model import SAT, Cache, Config
from tests.support.golden_weights import load_models, state_dict_by_rule

SAMPLE_RATE = 16_000
Model = TypeVar("Model", bound=torch.nn.Module)


def with_rule_weights(model: Model, seed: int) -> Model:
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    tensors = {name: torch.from_numpy(w) for name, w in state_dict_by_rule(shapes, seed).items()}
    front_end = {name for name in shapes if name.startswith("front_end.")}
    assert set(model.load_state_dict(tensors, strict=False).missing_keys) == front_end
    return model.eval()


def as_numpy(model: torch.nn.Module) -> dict[str, np.ndarray]:
    """Returns the state dict without the front end's constants."""
    tensors = {name: t for name, t in model.state_dict().items() if "front_end" not in name}
    return {name: tensor.numpy() for name, tensor in tensors.items()}


def config_of(name: str, **changes: Any) -> Config:
    fields = {field.name for field in dataclasses.fields(Config)}
    model = load_models()[name]
    return Config(**{key: value for key, value in model.items() if key in fields} | changes)


def small_sat(name: str, *, kv_cache: bool = False, **changes: Any) -> SAT:
    model = SAT(config_of(name, **changes), kv_cache=kv_cache)
    return with_rule_weights(model, load_models()[name]["seed"])


@torch.inference_mode()
def stream(
    model: SAT, waveform: Tensor, seconds: float, *, chunks: int, warmup: Any = "silence"
) -> tuple[Tensor, Cache]:
    """Returns the scores of each chunk [k, y] and the cache after the last."""
    cache, scores = model.init_cache(1, warmup), []
    for chunk in waveform.split(round(seconds * SAMPLE_RATE), 1)[:chunks]:
        probs, cache = model.forward_chunk(chunk, cache)
        scores.append(probs)
    return torch.cat(scores), cache
