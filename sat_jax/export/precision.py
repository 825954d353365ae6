"""How exported weight matrices are stored."""

from collections.abc import Sequence
from typing import Literal

Precision = Literal["float32", "float16", "int8"]
"""Vectors and all arithmetic stay float32."""


def precision_of(path: Sequence[str], precision: Precision) -> Precision:
    """Returns how a model in this precision stores the matrix at a path of its parameters.

    The head has 16 bits where others have 8: its rounding errors change logits directly.
    """
    return "float16" if precision == "int8" and path[0] == "head" else precision
