"""A message about an event: the same in files, on sockets and for home automation."""

import dataclasses
from typing import Any, Literal

from sat_jax.events.event import Reason

Kind = Literal["start", "update", "end"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class EventMessage:
    """An event starts, goes on or has ended. Times are seconds of the stream.

    Attributes:
      kind: "start", "update" or "end".
      id: "SESSION.FIRST_SAMPLE.CLASS"; the same sound has the same id, even if it is tagged again.
      label: name of the class or group.
      index: index of the class; None for a group.
      mid: AudioSet's id of the class; "" if it has none.
      start: beginning of the first chunk in which it was heard.
      end: end of the last chunk in which it was heard so far; only of updates and ends.
      time: date and time of the start in ISO 8601; "" if unknown.
      resolution: length of a chunk: the sound began within so many seconds after `start`.
      delay: from the start to this message.
      score: in the last chunk in which it was heard.
      peak: highest score.
      mean: mean score over the chunks in which it was heard.
      chunks: number of these chunks.
      parents: watched classes above it, heard in that chunk too and not told themselves.
      reason: why it ended; "" before.
      by: label of the class below it that is heard now; only if `reason` is "refined".
      continues: id of the event that it goes on with, after `max_on`; "" else.
      muted: whether it started during a cooldown, so that nobody should be notified.
    """

    kind: Kind
    id: str
    label: str
    index: int | None
    mid: str
    start: float
    end: float
    time: str
    resolution: float
    delay: float
    score: float
    peak: float
    mean: float
    chunks: int
    parents: tuple[str, ...] = ()
    reason: Reason | Literal[""] = ""
    by: str = ""
    continues: str = ""
    muted: bool = False

    def as_json(self) -> dict[str, Any]:
        """Returns the JSON object of the message. Fields that say nothing are left out."""
        found: dict[str, Any] = {"type": "event", "kind": self.kind, "id": self.id}
        found |= {"class": self.index, "label": self.label, "mid": self.mid}
        found["start"] = _rounded(self.start, 6)
        if self.kind != "start":
            found["end"] = _rounded(self.end, 6)
            found["duration"] = _rounded(self.end - self.start, 6)
        found |= {"time": self.time, "resolution": _rounded(self.resolution, 6)}
        found["delay"] = _rounded(self.delay, 6)
        found |= {name: _rounded(getattr(self, name), 4) for name in ("score", "peak", "mean")}
        found |= {"chunks": self.chunks, "parents": list(self.parents)}
        found |= {"reason": self.reason, "by": self.by, "continues": self.continues}
        return {k: v for k, v in found.items() if v not in (None, "", [])} | {"muted": self.muted}


def _rounded(number: float, decimals: int) -> float:
    return round(float(number), decimals)
