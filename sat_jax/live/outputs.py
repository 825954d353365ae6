"""What a stream tells: scores of chunks, events, gaps."""

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np

from sat_jax.events import EventMessage
from sat_jax.live.protocol import Want
from sat_jax.live.stream import decibels
from sat_jax.tags import TagSelection


@dataclass(frozen=True, kw_only=True, slots=True)
class Scores:
    """The scores of a chunk. Times are seconds of the stream.

    Attributes:
      chunk: number of the chunk, from 0.
      start: of the chunk.
      end: of the chunk.
      lag: seconds between the arrival of its last sample and its scores.
      rms: root mean square of its samples; 1 is full scale.
      probs: float32 [y].
    """

    chunk: int
    start: float
    end: float
    lag: float
    rms: float
    probs: np.ndarray

    def as_json(self, want: Want, selection: TagSelection) -> dict[str, Any]:
        """Returns the message with the strongest classes."""
        message: dict[str, Any] = {"type": "scores", "chunk": self.chunk}
        message |= {"start": round(self.start, 6), "end": round(self.end, 6)}
        message["lag"] = round(self.lag, 4)
        if want.level:
            message["level"] = round(decibels(self.rms), 1)
        tags = selection.tags(self.probs)[: want.k]
        message["top"] = [[tag.index, tag.label, round(tag.prob, 4)] for tag in tags]
        return message

    def as_bytes(self) -> bytes:
        """Returns the message with all scores: u32 chunk, u32 classes, f64 start, float32 [y]."""
        return (
            struct.pack("<IId", self.chunk, len(self.probs), self.start)
            + self.probs.astype("<f4").tobytes()
        )


@dataclass(frozen=True, kw_only=True)
class LostSound:
    """Sound that was not scored.

    Attributes:
      start: seconds of the stream.
      end: seconds of the stream.
      reason: "overload" of this machine, or "source" if it never came.
    """

    start: float
    end: float
    reason: str


@dataclass(frozen=True, kw_only=True)
class Marked:
    """All chunks before a mark are scored."""

    id: str


@dataclass(frozen=True, kw_only=True)
class Closed:
    """The stream has ended.

    Attributes:
      chunks: chunks scored.
      seconds: of the stream.
    """

    chunks: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class StateChange:
    """A watched sound is heard now, or no longer."""

    name: str
    is_on: bool


Output = Scores | EventMessage | LostSound | Marked | Closed | StateChange
