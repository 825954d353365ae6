"""What is heard, as lines for other programs."""

import json
from collections.abc import Callable

from sat_jax.events import EventMessage
from sat_jax.live.heard_stream import Heard, HeardStream
from sat_jax.live.sources import SourceStatus
from sat_jax.streaming.scored_chunk import ScoredChunk
from sat_jax.tagging.formats import TextFormat
from sat_jax.tagging.writers import TextStream, write_now
from sat_jax.tags import TagSelection


class StatusLines:
    """Tells when a source fails, is silent and is there again, each once."""

    def __init__(self, name: str, report: Callable[[str], None]) -> None:
        """Has told nothing yet.

        Args:
          name: of the source.
          report: takes a line.
        """
        self._name, self._report = name, report
        self._told = ""

    def tick(self, status: SourceStatus) -> None:
        """Looks at the source, see `sat_jax.live.listener.Audience`."""
        problem = describe_problem(status)
        if problem and problem != self._told:
            self._report(f"{self._name}: {problem}")
            self._told = problem
        elif self._told and status.up and not problem:
            self._report(f"{self._name}: is heard again")
            self._told = ""


def describe_problem(status: SourceStatus) -> str:
    """Returns what is wrong with a source; "" if nothing is."""
    if status.silent:
        return "sends only zeros: is it muted?"
    return status.error


class EventLines(StatusLines):
    """A JSON object per event message."""

    def __init__(self, stream: TextStream, name: str, report: Callable[[str], None]) -> None:
        """Writes nothing yet.

        Args:
          stream: the output.
          name: of the source.
          report: takes lines about the source.
        """
        super().__init__(name, report)
        self._stream = stream

    def show(self, heard: Heard) -> None:
        """Writes a message, see `sat_jax.live.listener.Audience`."""
        if isinstance(heard, EventMessage):
            write_now(self._stream, json.dumps(heard.as_json()) + "\n")


class TagLines(StatusLines):
    """The tags of each chunk with their times, as `sat-jax tag` writes them."""

    def __init__(
        self,
        stream: TextStream,
        name: str,
        report: Callable[[str], None],
        *,
        selection: TagSelection,
        heard: HeardStream,
    ) -> None:
        """Writes the name.

        Args:
          stream: the output.
          name: of the source.
          report: takes lines about the source.
          selection: which tags of a chunk to write.
          heard: knows the time.
        """
        super().__init__(name, report)
        self._stream, self._heard = stream, heard
        self._format = TextFormat(selection)
        write_now(stream, self._format.begin(name))

    def show(self, heard: Heard) -> None:
        """Writes a chunk, see `sat_jax.live.listener.Audience`."""
        if isinstance(heard, ScoredChunk):
            self._format.began = self._heard.clock.at(0.0)
            write_now(self._stream, self._format.chunk(heard))
