"""What the text formats of tags and events have in common."""

import abc
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from sat_jax.events import Level
    from sat_jax.streaming.scored_chunk import ScoredChunk


class OutputFormat(abc.ABC):
    """Base class of formats: returns the text for each step of a tagging run.

    Per recording, the calls are `begin`, `chunk` for each chunk as soon as it is scored, and `end`.

    Attributes:
      suffix: of files in this format, with its dot.
      header: the first line of the output.
      single_recording: whether an output holds only one recording.
      has_clock: whether it shows dates and times.
      tells_events: whether it tells events, not the tags of chunks.
      name: the current recording's name.
      began: the time of its first sample, if known.
    """

    suffix: ClassVar = ".txt"
    header: ClassVar = ""
    single_recording: ClassVar = False
    has_clock: ClassVar = True
    tells_events: ClassVar = False

    def __init__(self, selection: Any) -> None:
        """Stores the selection, which chooses what to write."""
        self.name = ""
        self.began: datetime | None = None
        self._selection = selection

    def begin(self, name: str, began: datetime | None = None) -> str:
        """Returns the text before a recording's first chunk."""
        self.name, self.began = name, began
        return ""

    @abc.abstractmethod
    def chunk(self, chunk: "ScoredChunk", levels: Sequence["Level"] = ()) -> str:
        """Returns the text that can be told now that a chunk is scored.

        Args:
          chunk: the next one.
          levels: of the sound up to its end, since those before.
        """

    def end(self) -> str:
        """Returns the text after a recording's last chunk."""
        return ""


def rounded(time: float, decimals: int) -> float:
    """Rounds off float noise: 0.16 + 0.16 + 0.16 becomes 0.48."""
    return round(float(time), decimals)
