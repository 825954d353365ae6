"""The text formats of events. Command lines list them: no numpy or JAX is imported."""

import abc
import csv
import io
import json
import math
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from sat_jax.errors import one_line
from sat_jax.tagging.output_format import OutputFormat, rounded

if TYPE_CHECKING:
    from sat_jax.events import EventMessage, Level
    from sat_jax.streaming.scored_chunk import ScoredChunk
    from sat_jax.tagging.selections import EventSelection


class EventFormat(OutputFormat):
    """Base class of formats of events."""

    tells_events = True
    _selection: "EventSelection"

    def begin(self, name: str, began: datetime | None = None) -> str:
        """Starts to follow a recording."""
        self._tracker, self._now = self._selection.track(name, began), 0.0
        return super().begin(name, began)

    def chunk(self, chunk: "ScoredChunk", levels: Sequence["Level"] = ()) -> str:
        """Returns the text that can be told now that a chunk is scored."""
        self._now = chunk.end
        messages = [each for level in levels for each in self._tracker.push_level(level)]
        messages += self._tracker.push(chunk.start, chunk.end, chunk.probs)
        return self.tell(messages, self._tracker.unfinished_since)

    def end(self) -> str:
        """Returns the text of the events that last until the end of the recording."""
        return self.tell(self._tracker.finish(self._now), math.inf)

    @abc.abstractmethod
    def tell(self, messages: Sequence["EventMessage"], unfinished_since: float) -> str:
        """Returns the text for messages.

        Args:
          messages: in their order.
          unfinished_since: seconds; events that end later don't start before.
        """


class EventsFormat(EventFormat):
    """JSON Lines in ASCII: a message whenever an event starts, goes on or has ended."""

    suffix = ".events.jsonl"

    def tell(self, messages: Sequence["EventMessage"], unfinished_since: float) -> str:
        """Returns an object with ``file`` and the fields of `EventMessage.as_json` for each."""
        return "".join(json.dumps({"file": self.name} | each.as_json()) + "\n" for each in messages)


class EventsCsvFormat(EventFormat):
    """A CSV table with a row per event, in the order of their ends.

    `id` is AudioSet's, empty for groups and other classes. `time` is the date and time of the
    start, empty if unknown.
    """

    suffix = ".events.csv"
    header = "file,start,end,label,peak,mean,id,time,reason\n"

    def tell(self, messages: Sequence["EventMessage"], unfinished_since: float) -> str:
        """Returns a row per event that ended."""
        rows = io.StringIO()
        csv.writer(rows, lineterminator="\n").writerows(
            (
                self.name,
                *(rounded(time, 6) for time in (each.start, each.end)),
                each.label,
                *(rounded(score, 4) for score in (each.peak, each.mean)),
                each.mid,
                each.time,
                each.reason,
            )
            for each in messages
            if each.kind == "end"
        )
        return rows.getvalue()


class OrderedFormat(EventFormat):
    """Base class of formats with an entry per event, ordered by their starts.

    An event that has ended waits while one that began before it goes on.
    """

    single_recording = True
    has_clock = False

    def begin(self, name: str, began: datetime | None = None) -> str:
        """Starts without events."""
        self._number, self._waiting = 0, list["EventMessage"]()
        return super().begin(name, began)

    def tell(self, messages: Sequence["EventMessage"], unfinished_since: float) -> str:
        """Returns the entries before which no other one can come."""
        self._waiting += (each for each in messages if each.kind == "end")
        self._waiting.sort(key=lambda each: (each.start, each.end))
        text = ""
        while self._waiting and self._waiting[0].start <= unfinished_since:
            self._number += 1
            text += self.entry(self._number, self._waiting.pop(0))
        return text

    @abc.abstractmethod
    def entry(self, number: int, event: "EventMessage") -> str:
        """Returns the text of an event; they are counted from 1."""


class SrtFormat(OrderedFormat):
    """SubRip subtitles: a cue per event, with its peak."""

    suffix = ".srt"

    def entry(self, number: int, event: "EventMessage") -> str:
        """Returns a numbered cue with a line such as ``Stream 96 %``."""
        start = round(1000 * event.start)
        # An event of a few samples rounds to 0 ms, and players drop such a cue.
        end = max(round(1000 * event.end), start + 1)
        line = f"{one_line(event.label)} {100 * event.peak:.0f} %"
        return f"{number}\n{_srt_time(start)} --> {_srt_time(end)}\n{line}\n\n"


class AudacityFormat(OrderedFormat):
    """An Audacity label track: start and end in seconds and a label, separated by tabs."""

    suffix = ".labels.txt"

    def entry(self, number: int, event: "EventMessage") -> str:
        """Returns the row of a region."""
        return f"{event.start:.6f}\t{event.end:.6f}\t{one_line(event.label)}\n"


class RavenFormat(OrderedFormat):
    """A selection table of Raven: tab-separated, a row per event, with its peak as confidence."""

    suffix = ".selections.txt"
    header = (
        "Selection\tView\tChannel\tBegin Time (s)\tEnd Time (s)\tLow Freq (Hz)\tHigh Freq (Hz)\t"
        "Annotation\tConfidence\n"
    )

    def entry(self, number: int, event: "EventMessage") -> str:
        """Returns the row of a selection, which covers all frequencies that the model hears."""
        times = f"{event.start:.6f}\t{event.end:.6f}\t0\t{self._selection.sample_rate // 2}"
        label = one_line(event.label)
        return f"{number}\tSpectrogram 1\t1\t{times}\t{label}\t{event.peak:.4f}\n"


def _srt_time(milliseconds: int) -> str:
    seconds, milliseconds = divmod(milliseconds, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{seconds:02},{milliseconds:03}"
