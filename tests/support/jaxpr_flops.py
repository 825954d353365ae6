"""Counts the matrix products of a traced program."""

import math
from typing import Any


def count_matmul_flops(jaxpr: Any) -> int:
    """Counts two for each multiply-add of all matrix products of a program.

    Args:
      jaxpr: `jax.extend.core.Jaxpr`. The most expensive branch of a conditional counts, and the
        body of a scan as often as it runs.

    Raises:
      ValueError: a while loop has a product, since its number of rounds is not known.
    """
    return sum(_count_equation(equation) for equation in jaxpr.eqns)


def _count_equation(equation: Any) -> int:
    kind, params = equation.primitive.name, equation.params
    if kind == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        left = equation.invars[0].aval.shape
        depth = math.prod(left[axis] for axis in contracted)
        return 2 * depth * math.prod(equation.outvars[0].aval.shape)
    if kind == "cond":
        return max(count_matmul_flops(branch.jaxpr) for branch in params["branches"])
    if kind == "while":
        if count_matmul_flops(params["body_jaxpr"].jaxpr):
            raise ValueError(
                "the number of rounds of a while loop with matrix products is not known"
            )
        return 0
    inner = params.get("jaxpr", params.get("call_jaxpr"))
    times = params["length"] if kind == "scan" else 1
    return 0 if inner is None else times * count_matmul_flops(getattr(inner, "jaxpr", inner))
