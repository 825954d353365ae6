"""Tags as text: the published layout, JSON lines, CSV, subtitles and label tracks."""

import contextlib
import csv
import dataclasses
import io
import json
from collections.abc import Callable, Iterator, Sequence, Set
from typing import TextIO

from sat_jax.errors import SatError, one_line
from sat_jax.tagging.tags import ScoredChunk, Tag, TagSelection


class TagFormat:
    """What every format answers: the text for each event of a tagging run.

    A format does no output itself. It is told, in this order, that a recording begins, each of its
    chunks as soon as that is scored, and that the recording ended.

    Attributes:
      header: what stands once at the head of the output.
      single_recording: whether an output can hold only one recording, because its times or
        numbers start at zero with each.
    """

    header = ""
    single_recording = False

    def __init__(self, selection: TagSelection) -> None:
        """Takes the selection by which the chunks' tags are chosen."""
        self.selection = selection

    def begin(self, name: str) -> str:
        """The text for the start of the recording `name`."""
        return ""

    def chunk(self, chunk: ScoredChunk, tags: Sequence[Tag]) -> str:
        """The text for a chunk and its tags (strongest first, perhaps none)."""
        raise NotImplementedError

    def end(self) -> str:
        """The text for the end of the recording."""
        return ""


class TextFormat(TagFormat):
    """The published layout: a line per tag, an empty line after each chunk.

    A chunk in which nothing reaches the threshold is left out, so that hours of quiet stay short.
    """

    def begin(self, name: str) -> str:
        """The line that names the recording."""
        return f"===== {one_line(name)} =====\n"

    def chunk(self, chunk: ScoredChunk, tags: Sequence[Tag]) -> str:
        """A line per tag, such as ``[0.0s]-[2.0s] Topk-1 Stream    0.9582``."""
        span = f"[{_seconds(chunk.start, 3)}s]-[{_seconds(chunk.end, 3)}s]"
        lines = [
            f"{span} Topk-{rank} {one_line(tag.label):<30} {tag.prob:.4f}\n"
            for rank, tag in enumerate(tags, 1)
        ]
        return "".join([*lines, "\n"]) if lines else ""


class JsonlFormat(TagFormat):
    """One JSON object per chunk, also for a chunk without tags. ASCII, whatever the names."""

    def begin(self, name: str) -> str:
        """Nothing: each object names its recording."""
        self._name = name
        return ""

    def chunk(self, chunk: ScoredChunk, tags: Sequence[Tag]) -> str:
        """An object with ``file``, ``start``, ``end`` and ``tags``."""
        record = {
            "file": self._name,
            "start": _seconds(chunk.start, 6),
            "end": _seconds(chunk.end, 6),
            "tags": [{"label": t.label, "index": t.index, "prob": t.prob} for t in tags],
        }
        return json.dumps(record) + "\n"


class CsvFormat(TagFormat):
    """One row per tag under a header row; names that hold commas are quoted."""

    header = "file,start,end,rank,label,prob\n"

    def begin(self, name: str) -> str:
        """Nothing: each row names its recording."""
        self._name = name
        return ""

    def chunk(self, chunk: ScoredChunk, tags: Sequence[Tag]) -> str:
        """A row per tag."""
        rows = io.StringIO()
        times = (_seconds(chunk.start, 6), _seconds(chunk.end, 6))
        csv.writer(rows, lineterminator="\n").writerows(
            (self._name, *times, rank, tag.label, tag.prob) for rank, tag in enumerate(tags, 1)
        )
        return rows.getvalue()


class SrtFormat(TagFormat):
    """SubRip subtitles: a cue per chunk that has tags, a line per tag."""

    single_recording = True

    def begin(self, name: str) -> str:
        """Nothing: a subtitle file does not name its recording."""
        self._cues = 0
        return ""

    def chunk(self, chunk: ScoredChunk, tags: Sequence[Tag]) -> str:
        """A numbered cue with lines such as ``Stream 96 %``."""
        if not tags:
            return ""
        self._cues += 1
        start = round(1000 * chunk.start)
        # Players drop a cue that lasts no time, as that of a last piece of a few samples would.
        end = max(round(1000 * chunk.end), start + 1)
        lines = [f"{one_line(tag.label)} {100 * tag.prob:.0f} %\n" for tag in tags]
        return f"{self._cues}\n{_srt_time(start)} --> {_srt_time(end)}\n{''.join(lines)}\n"


@dataclasses.dataclass
class _Region:
    label: str
    start: float
    end: float


class AudacityFormat(TagFormat):
    """A label track: start and end in seconds and a label, separated by tabs.

    With a threshold, consecutive chunks that share a tag become one region labelled with the
    class alone. A region is written once it has ended, so regions come in the order of their ends.
    Without one there is no telling where a sound begins: each chunk gets a label per tag, with its
    probability.
    """

    single_recording = True

    def begin(self, name: str) -> str:
        """Nothing: a label track does not name its recording."""
        self._open: dict[int, _Region] = {}
        return ""

    def chunk(self, chunk: ScoredChunk, tags: Sequence[Tag]) -> str:
        """The regions that ended before this chunk, or the chunk's own labels."""
        if self.selection.threshold is None:
            return "".join(
                _label_row(chunk.start, chunk.end, f"{tag.label} {tag.prob:.2f}") for tag in tags
            )
        going_on = {
            tag.index
            for tag in tags
            if tag.index in self._open and chunk.start - self._open[tag.index].end < _GAP
        }
        ended = self._close(self._open.keys() - going_on)
        for tag in tags:
            region = self._open.setdefault(tag.index, _Region(tag.label, chunk.start, chunk.end))
            region.end = chunk.end
        return ended

    def end(self) -> str:
        """The regions that last until the end of the recording."""
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
"""The formats by name."""


def check_format(name: str, num_recordings: int) -> None:
    """Refuses a format that is unknown or cannot hold so many recordings.

    Args:
      name: a key of `FORMATS`.
      num_recordings: how many recordings one output is to hold.

    Raises:
      SatError: it says which formats would do.
    """
    if name not in FORMATS:
        raise SatError(f"format {name!r} is none of {', '.join(FORMATS)}")
    if FORMATS[name].single_recording and num_recordings > 1:
        others = ", ".join(key for key, value in FORMATS.items() if not value.single_recording)
        raise SatError(
            f"format {name} holds one recording and {num_recordings} are given: "
            f"tag one file at a time, or use a format that names its files ({others})"
        )


class OutputError(SatError):
    """Tags cannot be written, of this recording or any other."""


class TagWriter:
    """Writes tags to a stream as they come, each chunk flushed at once."""

    def __init__(self, stream: TextIO, *, format_name: str, selection: TagSelection) -> None:
        """Writes the format's header, if it has one.

        Args:
          stream: where to write.
          format_name: a key of `FORMATS`.
          selection: which tags to show.

        Raises:
          SatError: there is no such format.
        """
        check_format(format_name, 1)
        self._stream = stream
        self._selection = selection
        self._format = FORMATS[format_name](selection)
        self._write(self._format.header)

    @contextlib.contextmanager
    def recording(self, name: str) -> Iterator[Callable[[ScoredChunk], None]]:
        """Writes one recording.

        What is held back until the recording's end is also written when the body fails, so that a
        stream that breaks off keeps all that was heard.

        Args:
          name: the recording's name as its user knows it.

        Yields:
          A function to call with each chunk as soon as it is scored.

        Raises:
          OutputError: the output cannot be written.
          BrokenPipeError: nobody reads the output any more.
        """
        self._write(self._format.begin(name))
        try:
            yield self._write_chunk
        finally:
            self._write(self._format.end())

    def _write_chunk(self, chunk: ScoredChunk) -> None:
        self._write(self._format.chunk(chunk, self._selection.tags(chunk.probs)))

    def _write(self, text: str) -> None:
        if not text:
            return
        try:
            self._stream.write(text)
            self._stream.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise OutputError(
                f"cannot write the tags: {error.strerror or error}; free some space or choose "
                "another place"
            ) from error


_GAP = 5e-4
"""Chunks closer than this, in seconds, touch: it is far under the shortest chunk."""


def _seconds(time: float, decimals: int) -> float:
    """A time without float noise: 0.16 + 0.16 + 0.16 is 0.48."""
    return round(float(time), decimals)


def _srt_time(milliseconds: int) -> str:
    seconds, milliseconds = divmod(milliseconds, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{seconds:02},{milliseconds:03}"


def _label_row(start: float, end: float, label: str) -> str:
    return f"{start:.6f}\t{end:.6f}\t{one_line(label)}\n"
