"""A compiled streaming step, with its memory and operations."""

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from sat_jax.config import ModelConfig
from sat_jax.profile.costs import count_multiply_adds, variable_shapes
from sat_jax.streaming.framing import Framing
from sat_jax.streaming.model import StreamingModel, Warmup
from sat_jax.streaming.pieces import Variables
from sat_jax.streaming.state import new_streams


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class CompiledStep:
    """A step on full chunks with a cache of keys and values, compiled without JAX's cache.

    Attributes:
      config: the model.
      framing: how its streams are cut into chunks.
      batch_size: b streams.
      program: takes weights, window [b, s] and state; returns scores and the next state.
      compile_seconds: time to trace, lower and compile.
      state_bytes: state of all streams.
      temporary_bytes: memory besides weights, samples and states.
      matmul_flops: two for each multiply-add of the matrix products, all streams.
      xla_flops: XLA's count of all operations, all streams; the body of a loop counts once.
    """

    config: ModelConfig
    framing: Framing
    batch_size: int
    program: jax.stages.Compiled
    compile_seconds: float
    state_bytes: int
    temporary_bytes: int
    matmul_flops: int
    xla_flops: float

    def repeat(
        self, variables: Variables, samples: np.ndarray, *, warmup: Warmup
    ) -> Callable[[], np.ndarray]:
        """Returns a function that runs one more step on the same samples.

        Args:
          variables: weights, on the device.
          samples: float32 [b, s], a full chunk.
          warmup: see `StreamingModel.init`; it does not change the time of a step.

        Returns:
          The function; it returns scores [b, y] once the next state is ready too.
        """
        streams = StreamingModel(self.config, self.framing)
        state = streams.init(variables, self.batch_size, warmup=warmup)

        def call() -> np.ndarray:
            nonlocal state
            scores, state = self.program(variables, samples, state)
            jax.block_until_ready(state)
            return np.asarray(scores)

        return call


def compile_step(config: ModelConfig, framing: Framing, batch_size: int) -> CompiledStep:
    """Compiles `StreamingModel.step`; weights are not needed.

    Args:
      config: the model.
      framing: how its streams are cut into chunks.
      batch_size: number of streams.
    """
    step, arguments = step_with_shapes(config, framing, batch_size)
    start = time.perf_counter()
    program = jax.jit(step).lower(*arguments).compile()
    compile_seconds = time.perf_counter() - start
    memory, costs = program.memory_analysis(), program.cost_analysis()
    assert memory is not None and costs is not None, "XLA reports both on CPU, GPU and TPU"
    return CompiledStep(
        config=config,
        framing=framing,
        batch_size=batch_size,
        program=program,
        compile_seconds=compile_seconds,
        state_bytes=sum(
            x.size * x.dtype.itemsize for x in jax.tree.leaves(new_streams(framing, arguments[-1]))
        ),
        temporary_bytes=memory.temp_size_in_bytes,
        matmul_flops=2 * batch_size * count_multiply_adds(config, framing).total,
        xla_flops=costs["flops"],
    )


def step_with_shapes(
    config: ModelConfig, framing: Framing, batch_size: int
) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """Returns the step, and the shapes of its arguments: weights, window and state."""
    streams, variables = StreamingModel(config, framing), variable_shapes(config)
    state = streams.state_shape(variables, batch_size)
    window = jax.ShapeDtypeStruct((batch_size, framing.window), np.float32)
    return streams.step, (variables, window, state)
