"""Operators that other compilers know.

Exporters trace the model inside a context, so that the program has no operator of JAX alone:

    with portable(True):
        exported = jax.export.export(...)
"""

import functools

import jax
import jax.numpy as jnp

portable = jax.make_user_context(False)
"""Context manager: whether functions traced inside it keep to operators that exporters know."""

_NUMERATOR = (
    -2.72614225801306e-10,
    2.77068142495902e-08,
    -2.10102402082508e-06,
    -5.69250639462346e-05,
    -7.34990630326855e-04,
    -2.95459980854025e-03,
    -1.60960333262415e-02,
)
_DENOMINATOR = (
    -1.45660718464996e-05,
    -2.13374055278905e-04,
    -1.68282697438203e-03,
    -7.37332916720468e-03,
    -1.42647390514189e-02,
)
_LIMIT = 3.832506856900711
"""From here on, erf is 1 in float32."""


def erf(x: jax.Array) -> jax.Array:
    """Returns the error function; in the context, as a rational function of float32's accuracy.

    The coefficients are those by which XLA and Eigen compute it.
    """
    if not portable.value:
        return jax.lax.erf(x)
    x = jnp.clip(x, -_LIMIT, _LIMIT)
    square = jnp.square(x)
    top, bottom = (
        functools.reduce(lambda sum_, factor: sum_ * square + factor, coefficients)
        for coefficients in (_NUMERATOR, _DENOMINATOR)
    )
    return x * top / bottom
