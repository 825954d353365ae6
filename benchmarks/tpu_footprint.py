"""Memory, operations and communication of a training step, found by compiling it."""

import dataclasses
import re
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from sat_jax.config import MaeConfig
from sat_jax.errors import SatError
from sat_jax.runtime.sharding import batch_sharding, check_batch_size
from sat_jax.training.config import TrainConfig
from sat_jax.training.step import compiled_step, state_shape

_COLLECTIVE = re.compile(
    r" = (?P<result>.*?) (?P<kind>all-reduce|all-gather|reduce-scatter|all-to-all|"
    r"collective-permute)(?:-done)?\("
)
_ARRAY = re.compile(r"\b(?P<type>pred|bf16|[fsuc]\d+)\[(?P<shape>[\d,]*)\]")
_BYTES = {"pred": 1, "bf16": 2}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Traffic:
    """Collectives of one kind in a step.

    Attributes:
      count: number of operations; one operation may reduce many arrays.
      num_bytes: size of their results on one device.
    """

    count: int
    num_bytes: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Footprint:
    """Costs of a compiled step on one device.

    Attributes:
      batch_size: global batch size.
      argument_bytes: size of state and batch.
      output_bytes: size of the next state, which mostly reuses the memory of the state before.
      temporary_bytes: size of all else.
      peak_bytes: largest memory in use at a time.
      flops: number of operations, as counted by XLA.
      collectives: communication between devices, by kind.
    """

    batch_size: int
    argument_bytes: int
    output_bytes: int
    temporary_bytes: int
    peak_bytes: int
    flops: float
    collectives: dict[str, Traffic]


def compile_footprint(
    config: TrainConfig, mesh: Mesh, *, batch_size: int, num_samples: int
) -> Footprint | None:
    """Compiles the training step of a run and returns its costs.

    Args:
      config: the run.
      mesh: its devices; descriptions of devices are enough.
      batch_size: global batch size.
      num_samples: samples of each example.

    Returns:
      The costs; None if the step does not fit in a device's memory.

    Raises:
      SatError: the devices can't share the batch evenly.
    """
    check_batch_size(mesh, batch_size)
    shapes = {"waveform": (batch_size, num_samples)}
    if not isinstance(config.model, MaeConfig):
        shapes["target"] = (batch_size, config.model.num_classes)
    batch = {
        name: jax.ShapeDtypeStruct(shape, jnp.float32, sharding=batch_sharding(mesh))
        for name, shape in shapes.items()
    }
    key = jax.eval_shape(jax.random.key, 0)
    step: jax.stages.Wrapped = compiled_step(config, mesh)  # type: ignore[assignment]
    lowered = step.lower(state_shape(config, mesh), batch, key=key)
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" in str(error):
            return None
        raise
    memory, costs = compiled.memory_analysis(), compiled.cost_analysis()
    assert memory is not None and costs is not None, "CPU, GPU and TPU compilers return both"
    return Footprint(
        batch_size=batch_size,
        argument_bytes=memory.argument_size_in_bytes,
        output_bytes=memory.output_size_in_bytes,
        temporary_bytes=memory.temp_size_in_bytes,
        peak_bytes=memory.peak_memory_in_bytes,
        flops=costs["flops"],
        collectives=find_collectives(compiled.as_text() or ""),
    )


def find_collectives(program: str) -> dict[str, Traffic]:
    """Counts the collectives in a program's HLO text; those in a loop's body count once."""
    found: dict[str, Traffic] = {}
    for line in program.splitlines():
        match = _COLLECTIVE.search(line)
        if match is None:
            continue
        size = sum(_size(array) for array in _ARRAY.finditer(match["result"]))
        before = found.get(match["kind"], Traffic(count=0, num_bytes=0))
        found[match["kind"]] = Traffic(count=before.count + 1, num_bytes=before.num_bytes + size)
    return found


def _size(array: re.Match[str]) -> int:
    size = _BYTES.get(array["type"]) or int(array["type"][1:]) // 8
    for axis in filter(None, array["shape"].split(",")):
        size *= int(axis)
    return size


def largest_batch(
    try_batch: Callable[[int], Footprint | None],
    *,
    unit: int,
    start: int,
    precision: float = 1 / 8,
) -> tuple[Footprint, int]:
    """Finds the largest batch that fits, by growing steps and then by bisection.

    Args:
      try_batch: from a batch size to its footprint; None if it does not fit.
      unit: batch sizes are multiples of this.
      start: first batch size to try, in units.
      precision: largest gap between the results, relative to the batch that fits. The gap is never
        smaller than one unit.

    Returns:
      The footprint of the largest batch that fits, and the smallest batch size that does not, both
      as tried.

    Raises:
      SatError: one unit does not fit.
    """
    fits: Footprint | None = None
    low, high, guess = 0, 0, start  # In units: largest that fits, smallest that does not.
    stride = max(1, int(precision * start))
    while not high or high - low > max(1, int(precision * low)):
        footprint = try_batch(guess * unit)
        if footprint is None:
            high = guess
        else:
            fits, low = footprint, guess
        if low and high:
            guess = (low + high) // 2
        else:
            guess = low + stride if low else max(1, high - stride)
            stride *= 2
    if fits is None:
        raise SatError(f"a batch of {unit} does not fit: use a smaller model or fsdp")
    return fits, high * unit


def expected_limit(smaller: Footprint, larger: Footprint, capacity: int) -> int:
    """Returns the batch size that fills the memory, by a line through two footprints.

    Args:
      smaller: footprint of a batch.
      larger: footprint of a larger batch.
      capacity: bytes of memory.
    """
    growth = (larger.peak_bytes - smaller.peak_bytes) / (larger.batch_size - smaller.batch_size)
    return int(larger.batch_size + (capacity - larger.peak_bytes) / growth)
