"""Streaming Audio Transformers in JAX: tags sounds chunk by chunk, as they arrive.

Tag a file:

    from sat_jax import Tagger

    tagger = Tagger.load("SAT_XS_2s")  # the bundled model
    for chunk in tagger.tag_file("street.wav"):
        print(chunk.start, chunk.end, tagger.labels[chunk.probs.argmax()])

Tag many files, on all cores:

    for path, chunks, error in tagger.tag_files(paths):
        print(path, error or len(chunks))

Tag 16 live streams, with samples [16, n] at 16 kHz:

    state = tagger.init(batch_size=16)
    probs, state = tagger.step(samples, state)  # probs [16, 527]

Main parts:

    sat_jax.tagger      Tagger: a model with its weights
    sat_jax.streaming   StreamingModel, StreamState: pure functions, for programs of your own
    sat_jax.models      the networks, as Flax modules
    sat_jax.training    the training loop
    sat_jax.commands    the command sat-jax

Errors that a user can fix are raised as `SatError`. Importing this package imports neither JAX nor
any other large library until a name is used.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sat_jax.errors import SatError as SatError
    from sat_jax.streaming.many_files import TaggedFile as TaggedFile
    from sat_jax.streaming.scored_chunk import ScoredChunk as ScoredChunk
    from sat_jax.streaming.state import StreamState as StreamState
    from sat_jax.tagger import Tagger as Tagger

_HOMES = {
    "SatError": "sat_jax.errors",
    "ScoredChunk": "sat_jax.streaming.scored_chunk",
    "StreamState": "sat_jax.streaming.state",
    "TaggedFile": "sat_jax.streaming.many_files",
    "Tagger": "sat_jax.tagger",
}

__all__ = ["SatError", "ScoredChunk", "StreamState", "TaggedFile", "Tagger", "__version__"]


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import version  # Takes half as long as a command's --help.

        return version("sat-jax")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
