"""What a training step takes of each device, found out by compiling it alone."""

import dataclasses
import re
from collections.abc import Callable

import jax
from jax.sharding import Mesh

from sat_jax.errors import SatError
from sat_jax.runtime.sharding import check_batch_size
from sat_jax.training.compile import batch_shape, compiled_step, state_shape
from sat_jax.training.config import TrainConfig

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
      count: operations, each for many arrays perhaps.
      num_bytes: of their results on one device.
    """

    count: int
    num_bytes: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Footprint:
    """A compiled step as one device sees it.

    Attributes:
      batch_size: examples on all devices together.
      argument_bytes: state and batch.
      output_bytes: the next state, most of it in the memory of the one before.
      temporary_bytes: what is needed beside them.
      peak_bytes: the most that is needed at a time.
      flops: as XLA counts them.
      collectives: by kind.
    """

    batch_size: int
    argument_bytes: int
    output_bytes: int
    temporary_bytes: int
    peak_bytes: int
    flops: float
    collectives: dict[str, Traffic]


def measure(
    config: TrainConfig, mesh: Mesh, *, batch_size: int, num_samples: int
) -> Footprint | None:
    """Compiles the training step that `sat_jax.training.loop.train` runs.

    Args:
      config: the run.
      mesh: its devices, which may be described only.
      batch_size: examples on all devices together.
      num_samples: samples of each.

    Returns:
      What it takes; None if it does not fit in a device's memory.

    Raises:
      SatError: the devices can't share the batch evenly.
    """
    check_batch_size(mesh, batch_size)
    batch = batch_shape(config, mesh, batch_size=batch_size, num_samples=num_samples)
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
    assert memory is not None and costs is not None, "compilers for CPU, GPU and TPU tell both"
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
    """The collectives in a program's HLO text; those in a loop's body count once."""
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
    """Finds the largest batch that fits; whatever it gives has been compiled.

    Args:
      try_batch: from a batch size to its footprint, or None where it does not fit.
      unit: what batch sizes are multiples of.
      start: the first batch to try, in units; from there it goes up or down by ever larger steps,
        then between what fits and what does not.
      precision: how close the largest that fits and the smallest that does not may stay, as a
        share of the former; never closer than one unit.

    Returns:
      The footprint of the largest batch that was seen to fit, and the smallest batch that was seen
      not to.

    Raises:
      SatError: not even one unit fits.
    """
    fits: Footprint | None = None
    low, high, guess = 0, 0, start  # In units: the largest that fits, the smallest that does not.
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
        raise SatError(f"not even a batch of {unit} fits: take a smaller model, or fsdp")
    return fits, high * unit


def expected_limit(smaller: Footprint, larger: Footprint, capacity: int) -> int:
    """The batch at which memory is full if it goes on to grow as between two footprints.

    Args:
      smaller: of one batch.
      larger: of a larger one.
      capacity: bytes of memory.
    """
    growth = (larger.peak_bytes - smaller.peak_bytes) / (larger.batch_size - smaller.batch_size)
    return int(larger.batch_size + (capacity - larger.peak_bytes) / growth)
