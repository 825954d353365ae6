"""Walks traced programs, so that tests need not read a compiler's text."""

from collections.abc import Callable, Iterator
from typing import Any

import jax


def equations(function: Callable[..., Any], *args: Any) -> Iterator[Any]:
    """Yields all equations of a traced function, also those of inner functions and branches."""
    yield from _walk(jax.make_jaxpr(function)(*args).jaxpr)


def _walk(jaxpr: Any) -> Iterator[Any]:
    for equation in jaxpr.eqns:
        yield equation
        for value in equation.params.values():
            for inner in value if isinstance(value, (list, tuple)) else [value]:
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    yield from _walk(inner)
