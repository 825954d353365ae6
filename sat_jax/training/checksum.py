"""A checksum of the arrays of a state, computed on the devices that hold them.

orbax and its store check what describes an array, but not its values: a flipped bit in a file of
values is read without an error (orbax-checkpoint 0.12, tensorstore 0.1).
"""

import zlib
from typing import Any

import jax
import jax.numpy as jnp


def checksum(tree: Any) -> int:
    """Returns a checksum of the names and values of arrays; one flipped bit always changes it.

    It is the same however the arrays are sharded. All processes call it. If their copies of an
    array differ, so may their results.

    Args:
      tree: arrays of up to 32 bits a value.
    """
    total = 0
    for path, array in jax.tree_util.tree_leaves_with_path(tree):
        name = zlib.crc32(jax.tree_util.keystr(path).encode()) | 1
        # One after the other: CPUs of several processes could begin independent sums over their
        # shards in different orders, and then wait for each other for ever.
        total += name * int(_hash(array))
    return total % 2**32


@jax.jit
def _hash(array: jax.Array) -> jax.Array:
    """Sums a hash of each value and its place modulo 2**32.

    For a place, different values have different hashes.
    """
    kind = jnp.dtype(f"uint{8 * array.dtype.itemsize}")
    bits = jax.lax.bitcast_convert_type(array, kind).astype(jnp.uint32)
    # Not of the flattened array: its shards would have to be gathered.
    place = jnp.zeros(array.shape, jnp.uint32)
    for axis, size in enumerate(array.shape):
        place = place * size + jax.lax.broadcasted_iota(jnp.uint32, array.shape, axis)
    mixed = bits + place * jnp.uint32(0x9E3779B9)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):  # MurmurHash3's last steps.
        mixed = (mixed ^ (mixed >> shift)) * jnp.uint32(factor)
    return jnp.sum(mixed ^ (mixed >> 16), dtype=jnp.uint32)
