"""An event of one class, and its announcements."""

from typing import Literal, NamedTuple

Reason = Literal["quiet", "closed", "max", "refined", "gap", "no_signal", "reload", "disabled"]
"""Why an event ended.

The class was no longer heard; the recording or stream ended; the event reached `max_on`; a class
below it is heard now; sound was lost; no sound arrives; other rules apply now; or its source was
switched off.
"""


class Event(NamedTuple):
    """A class that was heard. All times are seconds of the recording or stream.

    Attributes:
      start: beginning of the first chunk in which it was heard.
      end: end of the last such chunk so far.
      announced: end of the chunk with which the event reached `min_on`.
      score: score of the last chunk in which it was heard.
      peak: highest score.
      mean: mean score of the chunks in which it was heard, by their lengths.
      chunks: number of these chunks.
      muted: whether it started during the cooldown of the one before.
      continues: whether it goes on where another one ended at `max_on`.
      reason: None while it goes on.
    """

    start: float
    end: float
    announced: float
    score: float
    peak: float
    mean: float
    chunks: int
    muted: bool = False
    continues: bool = False
    reason: Reason | None = None


class Notice(NamedTuple):
    """An announcement: an event starts, goes on or has ended."""

    kind: Literal["start", "update", "end"]
    event: Event
