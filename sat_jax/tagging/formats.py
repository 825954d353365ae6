"""The text formats of tags. A new one is a `TagFormat` in the table `FORMATS` at the end.

Command lines read the table for --help, so this module imports no numpy or JAX.
"""

import abc
import csv
import dataclasses
import io
import json
from collections.abc import Sequence, Set
from datetime import datetime
from typing import TYPE_CHECKING

from sat_jax.errors import SatError, one_line
from sat_jax.tagging.start_time import clock_time

if TYPE_CHECKING:
    from sat_jax.streaming.scored_chunk import ScoredChunk
    from sat_jax.tags import Tag, TagSelection


class TagFormat(abc.ABC):
    """Base class of formats: returns the text for each event of a tagging run.

    Per recording, the calls are `begin`, `chunk` for each chunk as soon as it is scored, and `end`.

    Attributes:
      suffix: of files in this format, with its dot.
      header: the first line of the output.
      single_recording: whether an output holds only one recording.
      has_clock: whether it shows dates and times.
      name: the current recording's name.
      began: the time of its first sample, if known.
      selection: the rule by which the chunks' tags were chosen.
    """

    suffix = ".txt"
    header = ""
    single_recording = False
    has_clock = True

    def __init__(self, selection: "TagSelection") -> None:
        """Stores the selection."""
        self.name = ""
        self.began: datetime | None = None
        self.selection = selection

    def begin(self, name: str, began: datetime | None = None) -> str:
        """Returns the text before a recording's first chunk."""
        self.name, self.began = name, began
        return ""

    @abc.abstractmethod
    def chunk(self, chunk: "ScoredChunk", tags: Sequence["Tag"]) -> str:
        """Returns the text for a chunk and its tags, strongest first; `tags` may be empty."""

    def end(self) -> str:
        """Returns the text after a recording's last chunk."""
        return ""


class TextFormat(TagFormat):
    """The published layout: a line per tag, and an empty line after each chunk.

    Chunks without tags are left out.
    """

    def begin(self, name: str, began: datetime | None = None) -> str:
        """Returns a line with the recording's name."""
        return super().begin(name, began) + f"===== {one_line(name)} =====\n"

    def chunk(self, chunk: "ScoredChunk", tags: Sequence["Tag"]) -> str:
        """Returns lines such as ``[0.0s]-[2.0s] Topk-1 Stream    0.9582``; clock times if known."""
        span = f"[{_seconds(chunk.start, 3)}s]-[{_seconds(chunk.end, 3)}s]"
        if self.began:
            span = "-".join(f"[{clock_time(self.began, t)}]" for t in (chunk.start, chunk.end))
        lines = [
            f"{span} Topk-{rank} {one_line(tag.label):<30} {tag.prob:.4f}\n"
            for rank, tag in enumerate(tags, 1)
        ]
        return "".join([*lines, "\n"]) if lines else ""


class JsonlFormat(TagFormat):
    """JSON Lines in ASCII: an object per chunk, also for a chunk without tags."""

    suffix = ".jsonl"

    def chunk(self, chunk: "ScoredChunk", tags: Sequence["Tag"]) -> str:
        """Returns an object with ``file``, ``start``, ``end``, ``tags``, and ``time`` if known."""
        record = {
            "file": self.name,
            "start": _seconds(chunk.start, 6),
            "end": _seconds(chunk.end, 6),
            "tags": [
                {"label": tag.label, "index": tag.index, "prob": tag.prob, "id": tag.mid}
                for tag in tags
            ],
        }
        if self.began:
            record["time"] = clock_time(self.began, chunk.start)
        return json.dumps(record) + "\n"


class CsvFormat(TagFormat):
    """A CSV table with a row per tag.

    `id` is AudioSet's, empty for other classes. `time` is the date and time of the chunk's start,
    empty if unknown.
    """

    suffix = ".csv"
    header = "file,start,end,rank,label,prob,id,time\n"

    def chunk(self, chunk: "ScoredChunk", tags: Sequence["Tag"]) -> str:
        """Returns a row per tag."""
        rows = io.StringIO()
        times = (_seconds(chunk.start, 6), _seconds(chunk.end, 6))
        clock = clock_time(self.began, chunk.start) if self.began else ""
        csv.writer(rows, lineterminator="\n").writerows(
            (self.name, *times, rank, tag.label, tag.prob, tag.mid, clock)
            for rank, tag in enumerate(tags, 1)
        )
        return rows.getvalue()


class SrtFormat(TagFormat):
    """SubRip subtitles: a cue per chunk that has tags, with a line per tag."""

    suffix = ".srt"
    single_recording = True
    has_clock = False

    def begin(self, name: str, began: datetime | None = None) -> str:
        """Starts counting cues."""
        self._cues = 0
        return super().begin(name, began)

    def chunk(self, chunk: "ScoredChunk", tags: Sequence["Tag"]) -> str:
        """Returns a numbered cue with lines such as ``Stream 96 %``."""
        if not tags:
            return ""
        self._cues += 1
        start = round(1000 * chunk.start)
        # A last chunk of a few samples rounds to 0 ms, and players drop such a cue.
        end = max(round(1000 * chunk.end), start + 1)
        lines = [f"{one_line(tag.label)} {100 * tag.prob:.0f} %\n" for tag in tags]
        return f"{self._cues}\n{_srt_time(start)} --> {_srt_time(end)}\n{''.join(lines)}\n"


@dataclasses.dataclass
class _Region:
    label: str
    start: float
    end: float


class AudacityFormat(TagFormat):
    """An Audacity label track: start and end in seconds and a label, separated by tabs.

    With a threshold, consecutive chunks that share a tag become one region. It is written when it
    has ended, so regions are ordered by their ends. Without a threshold each chunk gets a label per
    tag, with the probability.
    """

    suffix = ".labels.txt"
    single_recording = True
    has_clock = False

    def begin(self, name: str, began: datetime | None = None) -> str:
        """Starts without open regions."""
        self._open: dict[int, _Region] = {}
        return super().begin(name, began)

    def chunk(self, chunk: "ScoredChunk", tags: Sequence["Tag"]) -> str:
        """Returns the regions that end before this chunk, or the chunk's own labels."""
        if self.selection.threshold is None:
            return "".join(
                _label_row(chunk.start, chunk.end, f"{tag.label} {tag.prob:.2f}") for tag in tags
            )
        going_on = {
            tag.index
            for tag in tags
            if tag.index in self._open and chunk.start - self._open[tag.index].end < _MAX_GAP
        }
        ended = self._close(self._open.keys() - going_on)
        for tag in tags:
            region = self._open.setdefault(tag.index, _Region(tag.label, chunk.start, chunk.end))
            region.end = chunk.end
        return ended

    def end(self) -> str:
        """Returns the regions that last until the end of the recording."""
        return self._close(set(self._open))

    def _close(self, indices: Set[int]) -> str:
        regions = [self._open.pop(index) for index in list(self._open) if index in indices]
        return "".join(_label_row(region.start, region.end, region.label) for region in regions)


FORMATS: dict[str, type[TagFormat]] = {
    "text": TextFormat,
    "jsonl": JsonlFormat,
    "csv": CsvFormat,
    "srt": SrtFormat,
    "audacity": AudacityFormat,
}
"""The formats by name; the choices of --format."""


def check_format(name: str, num_recordings: int) -> None:
    """Checks that a format exists and can hold so many recordings.

    Args:
      name: a key of `FORMATS`.
      num_recordings: recordings in one output.

    Raises:
      SatError: it cannot.
    """
    if name not in FORMATS:
        raise SatError(f"unknown format {name!r}: use one of {', '.join(FORMATS)}")
    if FORMATS[name].single_recording and num_recordings > 1:
        others = ", ".join(key for key, value in FORMATS.items() if not value.single_recording)
        raise SatError(
            f"format {name} holds one recording and {num_recordings} are given: "
            f"use --output_dir, or one of {others}"
        )


_MAX_GAP = 5e-4
"""Seconds between chunks that count as consecutive; far below the shortest chunk."""


def _seconds(time: float, decimals: int) -> float:
    """Rounds off float noise: 0.16 + 0.16 + 0.16 becomes 0.48."""
    return round(float(time), decimals)


def _srt_time(milliseconds: int) -> str:
    seconds, milliseconds = divmod(milliseconds, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{seconds:02},{milliseconds:03}"


def _label_row(start: float, end: float, label: str) -> str:
    return f"{start:.6f}\t{end:.6f}\t{one_line(label)}\n"
