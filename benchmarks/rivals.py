"""The streaming steps that are compared: ours compiled by XLA, and eager PyTorch's."""

import dataclasses
import functools
import time
from collections.abc import Callable
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True, kw_only=True)
class CompiledStep:
    """A streaming step of ours, compiled anew.

    Attributes:
      start: makes, for samples float32 [b, s], the call that steps on them again and again.
      hop: samples in a chunk.
      compile_seconds: tracing, lowering and compiling.
      temporary_bytes: what a step needs beside weights, samples and states.
      matmul_flops: of the matrix products, a multiply-add counted as two.
      xla_flops: of everything, as XLA counts.
    """

    start: Callable[[np.ndarray], Callable[[], np.ndarray]]
    hop: int
    compile_seconds: float
    temporary_bytes: int
    matmul_flops: int
    xla_flops: float


def compile_step(name: str, weights: dict[str, np.ndarray], batch: int) -> CompiledStep:
    """Compiles the step of a named model with chunk framing, full chunks and a K/V cache.

    Args:
      name: a streaming model of the registry.
      weights: under PyTorch's published names.
      batch: streams side by side.
    """
    import jax

    from sat_jax.convert.names import from_torch, nest
    from sat_jax.framing import make_framing
    from sat_jax.models.registry import MODELS
    from sat_jax.models.transformer import AudioTransformer
    from sat_jax.streaming import init_stream, stream_step

    config = MODELS[name]
    model, framing = AudioTransformer(config), make_framing(config, "chunk")
    variables = jax.device_put(nest(from_torch(weights)))
    begin = jax.jit(functools.partial(init_stream, model, framing=framing), static_argnums=1)
    state = begin(variables, batch)
    samples = jax.ShapeDtypeStruct((batch, framing.hop), np.float32)
    step = functools.partial(stream_step, model, framing=framing)
    started = time.perf_counter()
    compiled = jax.jit(step).lower(variables, samples, state).compile()
    compile_seconds = time.perf_counter() - started
    memory, costs = compiled.memory_analysis(), compiled.cost_analysis()
    assert memory is not None and costs is not None, "XLA tells both on a CPU"

    def start(chunk: np.ndarray) -> Callable[[], np.ndarray]:
        now = state

        def call() -> np.ndarray:
            nonlocal now
            probs, now = compiled(variables, chunk, now)
            jax.block_until_ready(now)
            return np.asarray(probs)

        return call

    return CompiledStep(
        start=start,
        hop=framing.hop,
        compile_seconds=compile_seconds,
        temporary_bytes=memory.temp_size_in_bytes,
        matmul_flops=count_matmul_flops(jax.make_jaxpr(step)(variables, samples, state).jaxpr),
        xla_flops=costs["flops"],
    )


def torch_step(model: Any, chunk: np.ndarray) -> Callable[[], np.ndarray]:
    """The call that lets a PyTorch model hear samples float32 [b, s] again and again."""
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


def count_matmul_flops(jaxpr: Any) -> int:
    """Twice the multiply-adds of all matrix products of a program without loops.

    Args:
      jaxpr: `jax.extend.core.Jaxpr`. Of a conditional the dearest branch counts.
    """
    total = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            left = equation.invars[0].aval.shape
            depth = int(np.prod([left[axis] for axis in contracted]))
            total += 2 * depth * int(np.prod(equation.outvars[0].aval.shape))
        branches = equation.params.get("branches")
        inner = equation.params.get("jaxpr")
        if branches:
            total += max(count_matmul_flops(branch.jaxpr) for branch in branches)
        elif inner is not None:
            total += count_matmul_flops(getattr(inner, "jaxpr", inner))
    return total
