"""Writes the streaming step as StableHLO, for CPUs, NVIDIA GPUs and TPUs.

The file is that of `jax.export`: JAX runs it without this package, and other compilers can read the
program inside. The weights are constants of the program.
"""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from sat_jax.export.check import Run
from sat_jax.export.signature import (
    NEW,
    PROBS,
    SAMPLES,
    from_arrays,
    state_arrays,
    to_arrays,
)
from sat_jax.models.portable import portable
from sat_jax.streaming.model import StreamingModel
from sat_jax.streaming.pieces import Variables

PLATFORMS = ("cpu", "cuda", "tpu")


def write_stablehlo(model: StreamingModel, variables: Variables) -> bytes:
    """Returns the step for any batch size: a dict of arrays to a dict of arrays.

    Args:
      model: without embeddings.
      variables: its weights.
    """
    (batch,) = jax.export.symbolic_shape("batch")
    shapes = {SAMPLES: jax.ShapeDtypeStruct((batch, model.framing.window), np.float32)}
    for each in state_arrays(model):
        shapes[each.name] = jax.ShapeDtypeStruct((batch, *each.shape), np.dtype(each.dtype))

    def step(arrays: Mapping[str, Any]) -> dict[str, Any]:
        samples = arrays[SAMPLES]
        state = from_arrays(model, arrays, samples.shape[0])
        probs, state = model.step(variables, samples, state)
        return {PROBS: probs} | {
            NEW + name: array for name, array in to_arrays(model, state).items()
        }

    with portable(True):
        exported = jax.export.export(jax.jit(step), platforms=PLATFORMS)(shapes)
    return bytes(exported.serialize())


def load_step(content: bytes) -> Run:
    """Returns the step of a file."""
    call = jax.jit(jax.export.deserialize(bytearray(content)).call)

    def run(arrays: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        return {name: np.asarray(array) for name, array in call(dict(arrays)).items()}

    return run
