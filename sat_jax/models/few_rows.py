"""The matrix product of linear layers, with a faster way for the few rows of a streaming step.

CPUs multiply some tens of rows faster with the kernel as the first factor. A streaming step then
takes 0.80 to 0.85 of the time, see docs/performance.md. Exporters do without
(`sat_jax.models.portable`): other compilers lack the choice between platforms.
"""

import functools
import math

import jax
import jax.numpy as jnp

from sat_jax.models.portable import portable

FEW_ROWS = [rows + cls_token for rows in range(8, 97, 8) for cls_token in (0, 1)]
"""Numbers of rows that CPUs multiply faster with the kernel first."""

FEWEST_VALUES = 4096
"""Size from which an input gains from it."""

Precision = jax.lax.Precision | None


def product(x: jax.Array, kernel: jax.Array, skip: int, precision: Precision) -> jax.Array:
    """Returns x·kernelᵀ without its first `skip` columns.

    Args:
      x: [..., d].
      kernel: [y, d].
      skip: columns to leave out.
      precision: of the product.

    Returns:
      [..., y - skip].
    """
    if not portable.value and x.dtype == jnp.float32 and _has_few_rows(x):
        return _few_rows(x, kernel, skip, precision)
    return _plain(x, kernel, skip, precision)


def _has_few_rows(x: jax.Array) -> bool:
    return math.prod(x.shape[:-1]) in FEW_ROWS and x.size >= FEWEST_VALUES


def _plain(x: jax.Array, kernel: jax.Array, skip: int, precision: Precision) -> jax.Array:
    contract_last = (((x.ndim - 1,), (1,)), ((), ()))
    return jax.lax.dot_general(x, kernel[skip:], contract_last, precision=precision)


# Gradients are plain products: those of a convolution would stay convolutions, which CPUs compute
# slowly.
@functools.partial(jax.custom_jvp, nondiff_argnums=(2, 3))
def _few_rows(x: jax.Array, kernel: jax.Array, skip: int, precision: Precision) -> jax.Array:
    """`_plain`, computed by `_kernel_first` on CPUs."""
    ways = (
        functools.partial(way, skip=skip, precision=precision) for way in (_kernel_first, _plain)
    )
    on_cpus, elsewhere = ways
    return jax.lax.platform_dependent(x, kernel, cpu=on_cpus, default=elsewhere)


@_few_rows.defjvp
def _derivative(skip, precision, primals, tangents):  # type: ignore[no-untyped-def]
    (x, kernel), (d_x, d_kernel) = primals, tangents
    derivative = _plain(d_x, kernel, skip, precision) + _plain(x, d_kernel, skip, precision)
    return _few_rows(x, kernel, skip, precision), derivative


def _kernel_first(x: jax.Array, kernel: jax.Array, skip: int, precision: Precision) -> jax.Array:
    """Computes `_plain` as a convolution of the kernel's rows with filters of length one.

    The filters are the rows of x. XLA for CPUs turns this into a product again, computed by another
    library than its other products. It takes all of the kernel, since copying a part of it would
    take longer. The cls token, one row over a multiple of eight and the first of one stream, is
    multiplied by itself: it would take a third of the time.
    """
    rows = x.reshape(-1, x.shape[-1])
    odd = rows.shape[0] % 8
    columns = jax.lax.conv_general_dilated(
        kernel[None],
        rows[odd:].T[None],
        window_strides=(1,),
        padding="VALID",
        dimension_numbers=("NWC", "WIO", "NWC"),
        precision=precision,
    )[0]
    if odd:
        first = jnp.matmul(kernel, rows[:odd].T, precision=precision)
        columns = jnp.concatenate([first, columns], axis=1)
    return columns[skip:].T.reshape(*x.shape[:-1], -1)
