"""The profile of a model: its step counted, compiled and timed."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np

from sat_jax.config import MaeConfig, ModelConfig
from sat_jax.errors import SatError
from sat_jax.find_model import find_checkpoint
from sat_jax.models.registry import MAES, MODELS
from sat_jax.profile.compiled_step import CompiledStep, compile_step
from sat_jax.profile.costs import (
    MultiplyAdds,
    Tokens,
    count_multiply_adds,
    count_parameters,
    count_tokens,
    variable_shapes,
)
from sat_jax.profile.timing import spread, time_for
from sat_jax.streaming.framing import make_framing
from sat_jax.streaming.pieces import Variables


@dataclasses.dataclass(frozen=True, kw_only=True)
class Latency:
    """Time of steps.

    Attributes:
      median_ms: median.
      p95_ms: 95th percentile.
      steps: number of timed steps.
    """

    median_ms: float
    p95_ms: float
    steps: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Profile:
    """Cost of a model's step.

    Attributes:
      model: its name.
      config: the model.
      chunk_seconds: audio per step.
      batch_size: number of streams.
      parameters: trainable numbers.
      tokens: of one stream.
      multiply_adds: of one stream.
      matmul_flops: of all streams, two for each multiply-add.
      xla_flops: of all streams, XLA's count of all operations; the body of a loop counts once.
      temporary_bytes: memory besides weights, samples and states.
      state_bytes: state of all streams.
      compile_seconds: time to trace, lower and compile.
      latency: of steps of all streams; None if not timed.
    """

    model: str
    config: ModelConfig
    chunk_seconds: float
    batch_size: int
    parameters: int
    tokens: Tokens
    multiply_adds: MultiplyAdds
    matmul_flops: int
    xla_flops: float
    temporary_bytes: int
    state_bytes: int
    compile_seconds: float
    latency: Latency | None

    def to_dict(self) -> dict[str, Any]:
        """Returns all numbers, JSON-ready."""
        return dataclasses.asdict(self) | {"multiply_adds": self.multiply_adds.to_dict()}


def find_model(name_or_path: str) -> tuple[ModelConfig, Variables | None]:
    """Finds a model without a download.

    Args:
      name_or_path: a named model, a checkpoint folder, or a PyTorch or safetensors file.

    Returns:
      The config, and the weights; None for a named model, since random weights cost the same.

    Raises:
      SatError: there is no such model, or it is a masked autoencoder.
    """
    config: ModelConfig | MaeConfig
    variables = None
    if name_or_path in MODELS | MAES and not Path(name_or_path).exists():
        config = (MODELS | MAES)[name_or_path]
    else:
        checkpoint = find_checkpoint(name_or_path)
        config, variables = checkpoint.config, checkpoint.variables
    if isinstance(config, MaeConfig):
        raise SatError(
            f"{name_or_path} is a masked autoencoder, which has no streaming step: give a clip or "
            "streaming model"
        )
    return config, variables


def profile_step(
    name: str,
    config: ModelConfig,
    variables: Variables | None = None,
    *,
    chunk_seconds: float | None,
    batch_size: int = 1,
    seconds: float = 0.0,
) -> Profile:
    """Counts, compiles and times a step on a full chunk.

    Args:
      name: the model's name.
      config: the model.
      variables: its weights; None takes random ones.
      chunk_seconds: audio per step, at least 0.16; None is the model's chunk length.
      batch_size: number of streams, at least 1.
      seconds: how long steps are timed; 0 skips it.

    Raises:
      SatError: the chunk is shorter than a patch, or the step does not fit in memory.
    """
    framing = make_framing(config, "chunk", chunk_seconds=chunk_seconds)
    rate = config.frontend.sample_rate
    try:
        step = compile_step(config, framing, batch_size)
        latency = _measure_latency(step, variables, seconds) if seconds else None
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
        if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error):
            raise SatError(
                f"{name}: {batch_size} streams of {framing.hop / rate:g} s do not fit in memory: "
                "give a smaller --batch or --chunk"
            ) from error
        raise
    return Profile(
        model=name,
        config=config,
        chunk_seconds=framing.hop / rate,
        batch_size=batch_size,
        parameters=count_parameters(config),
        tokens=count_tokens(config, framing),
        multiply_adds=count_multiply_adds(config, framing),
        matmul_flops=step.matmul_flops,
        xla_flops=step.xla_flops,
        temporary_bytes=step.temporary_bytes,
        state_bytes=step.state_bytes,
        compile_seconds=step.compile_seconds,
        latency=latency,
    )


def _measure_latency(step: CompiledStep, variables: Variables | None, seconds: float) -> Latency:
    rng = np.random.default_rng(0)
    if variables is None:
        variables = _random_variables(step.config, rng)
    samples = 0.1 * rng.standard_normal((step.batch_size, step.framing.hop), np.float32)
    call = step.repeat(jax.device_put(variables), samples, warmup="none")
    times = time_for(call, seconds)
    return Latency(**spread([times]), steps=len(times))


def _random_variables(config: ModelConfig, rng: np.random.Generator) -> Variables:
    """Draws weights with NumPy, which compiles nothing; positive, as variances must be."""

    def draw(shape: jax.ShapeDtypeStruct) -> np.ndarray:
        return 0.02 * np.abs(rng.standard_normal(shape.shape, np.float32))

    return jax.tree.map(draw, variable_shapes(config))
