"""A model's profile: counted, compiled, measured."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np

from sat_jax.config import MaeConfig, ModelConfig
from sat_jax.errors import SatError
from sat_jax.find_model import find_checkpoint
from sat_jax.models.registry import MAES, MODELS
from sat_jax.profile.analytic import (
    MultiplyAdds,
    Tokens,
    count_multiply_adds,
    count_parameters,
    count_tokens,
    variable_shapes,
)
from sat_jax.profile.compiled import CompiledStep, compile_step
from sat_jax.profile.timing import spread, time_for
from sat_jax.streaming.framing import make_framing
from sat_jax.streaming.pieces import Variables


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Subject:
    """A model to look at.

    Attributes:
      name: as it was asked for.
      config: the model.
      variables: its weights; None are random ones, which cost the same.
    """

    name: str
    config: ModelConfig
    variables: Variables | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Latency:
    """How long steps took.

    Attributes:
      median_ms: half of them were faster.
      p95_ms: 95 % of them were faster.
      steps: how many were measured.
    """

    median_ms: float
    p95_ms: float
    steps: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Profile:
    """What a step of a model costs.

    Attributes:
      model: its name.
      config: the model.
      chunk_seconds: what one step hears.
      batch_size: streams side by side.
      parameters: trainable numbers.
      tokens: of one stream.
      multiply_adds: of one stream.
      matmul_flops: twice the multiply-adds, counted in the traced step, of all streams.
      xla_flops: of everything in the compiled step, of all streams; a loop's body once.
      temporary_bytes: what a step needs beside weights, samples and states.
      state_bytes: the state of all streams.
      compile_seconds: tracing, lowering and compiling.
      latency: of steps of all streams; None if it was not measured.
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
        """All of it as JSON-ready data."""
        work = self.multiply_adds
        names = ("linear", "network", "total", "published")
        sums = {name: getattr(work, name) for name in names}
        data = dataclasses.asdict(self)
        return data | {"multiply_adds": dataclasses.asdict(work) | sums}


def find_subject(name_or_path: str) -> Subject:
    """Finds a model without downloading anything.

    Args:
      name_or_path: a name of the registry, whose weights are then random, a checkpoint folder, or
        a PyTorch or safetensors file.

    Raises:
      SatError: there is no such model, or it is an autoencoder.
    """
    is_path = Path(name_or_path).exists()
    if name_or_path in MODELS and not is_path:
        return Subject(name=name_or_path, config=MODELS[name_or_path], variables=None)
    if name_or_path in MAES and not is_path:
        raise _autoencoder(name_or_path)
    checkpoint = find_checkpoint(name_or_path)
    if isinstance(checkpoint.config, MaeConfig):
        raise _autoencoder(name_or_path)
    return Subject(name=name_or_path, config=checkpoint.config, variables=checkpoint.variables)


def _autoencoder(name: str) -> SatError:
    return SatError(
        f"{name} is a masked autoencoder, which hears no streams: give a clip or streaming model"
    )


def profile_step(
    subject: Subject, *, chunk_seconds: float | None, batch_size: int = 1, seconds: float = 0.0
) -> Profile:
    """Counts, compiles and measures a step on a full chunk.

    Args:
      subject: the model.
      chunk_seconds: what a step hears, at least 0.16; None is the model's own length.
      batch_size: streams side by side, at least 1.
      seconds: for how long steps are measured; 0 leaves it.

    Raises:
      SatError: the chunk is under a patch, or memory too small.
    """
    config = subject.config
    framing = make_framing(config, "chunk", chunk_seconds=chunk_seconds)
    rate = config.frontend.sample_rate
    try:
        step = compile_step(config, framing, batch_size)
        latency = _measure_latency(step, subject.variables, seconds) if seconds else None
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
        if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error):
            raise SatError(
                f"{subject.name}: {batch_size} streams of {framing.hop / rate:g} s do not fit in "
                "memory: give a smaller batch or chunk"
            ) from error
        raise
    return Profile(
        model=subject.name,
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
    """Weights that nothing has to be compiled for; none is negative, as variances can't be."""

    def draw(shape: jax.ShapeDtypeStruct) -> np.ndarray:
        return 0.02 * np.abs(rng.standard_normal(shape.shape, np.float32))

    return jax.tree.map(draw, variable_shapes(config))
