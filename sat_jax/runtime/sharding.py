"""How batches and states are spread over devices and hosts.

One mesh with one axis: every device sees its share of each batch. Weights and the optimiser's
memory are on every device, or ("fsdp") spread over them too; then XLA gathers weights when they are
used and scatters gradients, and the answers stay the same.
"""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from sat_jax.errors import SatError

DATA_AXIS = "data"

SMALLEST_SHARDED = 1 << 14
"""Values of the smallest array worth spreading; to gather smaller ones only costs time."""


def make_mesh(devices: list[jax.Device] | None = None) -> Mesh:
    """All devices of all processes in a row, or the given ones."""
    every = np.asarray(devices if devices is not None else jax.devices())
    return Mesh(every, (DATA_AXIS,), axis_types=(AxisType.Auto,))


def check_shared(mesh: Mesh, batch_size: int) -> None:
    """Refuses a batch that the devices can't share evenly, by SatError."""
    if batch_size % mesh.size:
        raise SatError(
            f"a batch of {batch_size} can't be shared by {mesh.size} devices: give a multiple of it"
        )


def replicated(mesh: Mesh) -> NamedSharding:
    """The whole array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def split_batch(mesh: Mesh) -> NamedSharding:
    """Rows spread over the devices."""
    return NamedSharding(mesh, PartitionSpec(DATA_AXIS))


def spread_state(mesh: Mesh, state: Any, *, fsdp: bool) -> Any:
    """Where each array of a training state lies.

    Args:
      mesh: the devices.
      state: arrays or `jax.ShapeDtypeStruct`.
      fsdp: whether large arrays are cut along their longest axis that the devices divide evenly.

    Returns:
      The same tree of shardings.
    """

    def place(array: Any) -> NamedSharding:
        even = [axis for axis, size in enumerate(array.shape) if size % mesh.size == 0]
        if not fsdp or not even or array.size < SMALLEST_SHARDED:
            return replicated(mesh)
        longest = max(even, key=lambda axis: array.shape[axis])
        return NamedSharding(mesh, PartitionSpec(*[None] * longest, DATA_AXIS))

    return jax.tree.map(place, state)


def to_devices(mesh: Mesh, local: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
    """The global batch, of which each process has its own rows, in the order of processes."""
    return {
        name: jax.make_array_from_process_local_data(split_batch(mesh), rows)
        for name, rows in local.items()
    }
