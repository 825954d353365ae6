"""Streaming Audio Transformers in JAX.

`Tagger` hears and tags; `SatError` is what it raises for the user to read. Importing this
package imports neither of them until it is asked for, nor TensorFlow, torch or ONNX ever.
"""

import importlib
import importlib.metadata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sat_jax.errors import SatError as SatError
    from sat_jax.streaming.state import StreamState as StreamState
    from sat_jax.tagger import Tagger as Tagger

__all__ = ["SatError", "StreamState", "Tagger", "__version__"]

_HOMES = {
    "SatError": "sat_jax.errors",
    "StreamState": "sat_jax.streaming.state",
    "Tagger": "sat_jax.tagger",
}


def __getattr__(name: str) -> object:
    if name == "__version__":
        return importlib.metadata.version("sat-jax")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
