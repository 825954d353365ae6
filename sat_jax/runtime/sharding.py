"""How batches and training states are sharded over devices and hosts.

The mesh has one axis, "data": each device gets its rows of every batch. Weights and optimiser state
are replicated or, with `fsdp`, sharded too. XLA then gathers weights before use and scatters
gradients; results do not change.
"""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from sat_jax.errors import SatError

DATA_AXIS = "data"

MIN_SHARDED_SIZE = 1 << 14
"""Values from which an array is sharded: gathering smaller ones costs more than it saves."""


def make_mesh(devices: list[jax.Device] | None = None) -> Mesh:
    """Returns a mesh of the given devices, by default of all devices of all processes."""
    every = np.asarray(devices if devices is not None else jax.devices())
    return Mesh(every, (DATA_AXIS,), axis_types=(AxisType.Auto,))


def check_batch_size(mesh: Mesh, batch_size: int) -> None:
    """Raises `SatError` if the devices cannot share a global batch evenly."""
    if batch_size % mesh.size:
        raise SatError(
            f"a batch of {batch_size} does not divide by {mesh.size} devices: use a multiple of "
            f"{mesh.size}"
        )


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of an array that every device holds whole."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of a batch: its rows are divided among the devices."""
    return NamedSharding(mesh, PartitionSpec(DATA_AXIS))


def state_sharding(mesh: Mesh, state: Any, *, fsdp: bool) -> Any:
    """Returns the sharding of each array of a training state.

    Args:
      mesh: the devices.
      state: a tree of arrays or `jax.ShapeDtypeStruct`.
      fsdp: whether to shard arrays of at least `MIN_SHARDED_SIZE` values, along the longest axis
        that divides evenly. The others are replicated.

    Returns:
      The same tree of shardings.
    """

    def sharding(array: Any) -> NamedSharding:
        even = [axis for axis, size in enumerate(array.shape) if size % mesh.size == 0]
        if not fsdp or not even or array.size < MIN_SHARDED_SIZE:
            return replicated(mesh)
        longest = max(even, key=lambda axis: array.shape[axis])
        return NamedSharding(mesh, PartitionSpec(*[None] * longest, DATA_AXIS))

    return jax.tree.map(sharding, state)


def shard_batch(mesh: Mesh, local: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
    """Puts a global batch on the devices.

    Args:
      mesh: the devices.
      local: this process's rows. Global rows are in the order of the processes.

    Returns:
      The global arrays.
    """
    return {
        name: jax.make_array_from_process_local_data(batch_sharding(mesh), rows)
        for name, rows in local.items()
    }
