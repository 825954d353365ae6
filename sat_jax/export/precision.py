"""How exported weight matrices are stored."""

from typing import Literal

Precision = Literal["float32", "float16", "int8"]
"""Vectors and computation stay float32 but for LiteRT's "int8"."""
