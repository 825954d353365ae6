"""The compiled step: what the compiler tells of it, and calls that can be timed."""

import dataclasses
import time
from collections.abc import Callable

import jax
import numpy as np

from sat_jax.config import ModelConfig
from sat_jax.profile.analytic import variable_shapes
from sat_jax.profile.traced import count_matmul_flops
from sat_jax.streaming.framing import Framing
from sat_jax.streaming.model import StreamingModel, Warmup
from sat_jax.streaming.pieces import Variables
from sat_jax.streaming.state import StreamState


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class CompiledStep:
    """A streaming step on full chunks with a cache of keys and values, compiled anew.

    Attributes:
      config: the model.
      framing: how its streams are cut into chunks.
      batch_size: streams side by side.
      program: weights, samples [b, s] and state in, scores and the next state out.
      compile_seconds: tracing, lowering and compiling.
      state_bytes: the state of all streams.
      temporary_bytes: what a step needs beside weights, samples and states.
      matmul_flops: of the matrix products of all streams, a multiply-add counted as two.
      xla_flops: of everything, as XLA counts: a loop's body once.
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
        """The call that lets the streams hear the same samples again and again.

        Args:
          variables: weights, on the device.
          samples: float32 [b, s], a full chunk.
          warmup: see `StreamingModel.init`; a step takes as long with either.

        Returns:
          A call that gives scores [b, y] once the next state is ready too.
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
    """Compiles `sat_jax.streaming.StreamingModel.step`; no weights are needed.

    Args:
      config: the model.
      framing: how its streams are cut into chunks.
      batch_size: streams side by side.
    """
    step, arguments = _step_and_shapes(config, framing, batch_size)
    started = time.perf_counter()
    program = jax.jit(step).lower(*arguments).compile()
    compile_seconds = time.perf_counter() - started
    memory, costs = program.memory_analysis(), program.cost_analysis()
    assert memory is not None and costs is not None, "compilers for CPU, GPU and TPU tell both"
    return CompiledStep(
        config=config,
        framing=framing,
        batch_size=batch_size,
        program=program,
        compile_seconds=compile_seconds,
        state_bytes=sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(arguments[-1])),
        temporary_bytes=memory.temp_size_in_bytes,
        matmul_flops=trace_matmul_flops(config, framing, batch_size),
        xla_flops=costs["flops"],
    )


def trace_matmul_flops(config: ModelConfig, framing: Framing, batch_size: int) -> int:
    """Matrix products of the step as traced, see `CompiledStep`."""
    step, arguments = _step_and_shapes(config, framing, batch_size)
    return count_matmul_flops(jax.make_jaxpr(step)(*arguments).jaxpr)


def _step_and_shapes(
    config: ModelConfig, framing: Framing, batch_size: int
) -> tuple[Callable[..., tuple[jax.Array, StreamState]], tuple[Variables, ...]]:
    streams, variables = StreamingModel(config, framing), variable_shapes(config)
    state = streams.state_shape(variables, batch_size)
    samples = jax.ShapeDtypeStruct((batch_size, framing.hop), np.float32)
    return streams.step, (variables, samples, state)
