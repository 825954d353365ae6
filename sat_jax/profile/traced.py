"""Counting what a traced program does."""

import math
from typing import Any


def count_matmul_flops(jaxpr: Any) -> int:
    """Twice the multiply-adds of all matrix products of a program.

    Args:
      jaxpr: `jax.extend.core.Jaxpr`. Of a conditional the dearest branch counts, and the body of a
        scan as often as it runs.

    Raises:
      ValueError: there is a product in a loop that runs until something happens.
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
            raise ValueError("nobody knows how often a while loop with matrix products runs")
        return 0
    inner = params.get("jaxpr", params.get("call_jaxpr"))
    times = params["length"] if kind == "scan" else 1
    return 0 if inner is None else times * count_matmul_flops(getattr(inner, "jaxpr", inner))
