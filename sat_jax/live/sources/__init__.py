"""Sources of live sound, as iterators of blocks.

Each is read by a thread of its own. A source that dies or hangs comes back by itself.
"""

from sat_jax.live.sources.addresses import shown_address
from sat_jax.live.sources.microphone import Microphone, list_microphones
from sat_jax.live.sources.open_source import open_source
from sat_jax.live.sources.source import Gap, Source, SourceStatus

__all__ = [
    "Gap",
    "Microphone",
    "Source",
    "SourceStatus",
    "list_microphones",
    "open_source",
    "shown_address",
]
