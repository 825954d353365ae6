"""The compared streaming steps: ours compiled by XLA, and eager PyTorch's."""

from collections.abc import Callable
from typing import Any

import numpy as np


def compile_step(name: str, weights: dict[str, np.ndarray], batch: int) -> tuple[Any, Any]:
    """Compiles the step of a named model with chunk framing, full chunks and a K/V cache.

    Args:
      name: of a streaming model.
      weights: under PyTorch's published names.
      batch: number of streams.

    Returns:
      A `sat_jax.profile.compiled_step.CompiledStep`, and the weights as its arguments.
    """
    import jax

    from sat_jax.convert.weight_table import from_torch
    from sat_jax.models.registry import MODELS
    from sat_jax.profile import compiled_step
    from sat_jax.streaming.framing import make_framing

    framing = make_framing(MODELS[name], "chunk")
    variables = jax.device_put(from_torch(weights))
    return compiled_step.compile_step(MODELS[name], framing, batch), variables


def torch_step(model: Any, chunk: np.ndarray) -> Callable[[], np.ndarray]:
    """Returns a function that runs a PyTorch model on samples float32 [b, s], call after call."""
    import torch

    samples = torch.from_numpy(chunk)
    with torch.inference_mode():
        cache = model.init_cache(chunk.shape[0])

    @torch.inference_mode()
    def call() -> np.ndarray:
        nonlocal cache
        probs, cache = model.forward_chunk(samples, cache)
        return probs.numpy()

    return call
