"""Streams: framing, the state, one step, and a scan over many steps.

`StreamingModel` is a model with its framing. Its `init`, `step`, `scan` and `finish` are pure
functions of weights, windows of samples and a `ModelState`, which is a plain pytree. A
`StreamState` also holds, on the host, the samples that wait for the next window.
"""

from typing import TYPE_CHECKING

from sat_jax.runtime.lazy_names import lazy_names

if TYPE_CHECKING:
    from sat_jax.streaming.framing import Framing as Framing
    from sat_jax.streaming.framing import make_framing as make_framing
    from sat_jax.streaming.model import StreamingModel as StreamingModel
    from sat_jax.streaming.state import ModelState as ModelState
    from sat_jax.streaming.state import StreamState as StreamState
    from sat_jax.streaming.state import reset_streams as reset_streams
    from sat_jax.streaming.state_bytes import state_from_bytes as state_from_bytes
    from sat_jax.streaming.state_bytes import state_to_bytes as state_to_bytes

_HOMES = {  # Imported when asked for: JAX takes a second.
    "Framing": "framing",
    "ModelState": "state",
    "StreamState": "state",
    "StreamingModel": "model",
    "make_framing": "framing",
    "reset_streams": "state",
    "state_from_bytes": "state_bytes",
    "state_to_bytes": "state_bytes",
}

__all__ = sorted(_HOMES)

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
