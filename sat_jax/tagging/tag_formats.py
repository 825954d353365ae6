"""The text formats of tags. Command lines list them: no numpy or JAX is imported."""

import abc
import csv
import io
import json
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from sat_jax.errors import one_line
from sat_jax.tagging.output_format import OutputFormat, rounded
from sat_jax.tagging.start_time import clock_time

if TYPE_CHECKING:
    from sat_jax.events import Level
    from sat_jax.streaming.scored_chunk import ScoredChunk
    from sat_jax.tags import Tag, TagSelection


class TagFormat(OutputFormat):
    """Base class of formats of tags."""

    _selection: "TagSelection"

    def chunk(self, chunk: "ScoredChunk", levels: Sequence["Level"] = ()) -> str:
        """Returns the text for a chunk."""
        return self.tags(chunk, self._selection.tags(chunk.probs))

    @abc.abstractmethod
    def tags(self, chunk: "ScoredChunk", tags: Sequence["Tag"]) -> str:
        """Returns the text for a chunk and its tags, strongest first; `tags` may be empty."""


class TextFormat(TagFormat):
    """The published layout: a line per tag, and an empty line after each chunk.

    Chunks without tags are left out.
    """

    def begin(self, name: str, began: datetime | None = None) -> str:
        """Returns a line with the recording's name."""
        return super().begin(name, began) + f"===== {one_line(name)} =====\n"

    def tags(self, chunk: "ScoredChunk", tags: Sequence["Tag"]) -> str:
        """Returns lines such as ``[0.0s]-[2.0s] Topk-1 Stream    0.9582``; clock times if known."""
        span = f"[{rounded(chunk.start, 3)}s]-[{rounded(chunk.end, 3)}s]"
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

    def tags(self, chunk: "ScoredChunk", tags: Sequence["Tag"]) -> str:
        """Returns an object with ``file``, ``start``, ``end``, ``tags``, and ``time`` if known."""
        record = {
            "file": self.name,
            "start": rounded(chunk.start, 6),
            "end": rounded(chunk.end, 6),
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

    def tags(self, chunk: "ScoredChunk", tags: Sequence["Tag"]) -> str:
        """Returns a row per tag."""
        rows = io.StringIO()
        times = (rounded(chunk.start, 6), rounded(chunk.end, 6))
        clock = clock_time(self.began, chunk.start) if self.began else ""
        csv.writer(rows, lineterminator="\n").writerows(
            (self.name, *times, rank, tag.label, tag.prob, tag.mid, clock)
            for rank, tag in enumerate(tags, 1)
        )
        return rows.getvalue()
