"""What is heard, on a terminal: levels, tags and events, drawn in place."""

import collections
import math
import shutil
from collections.abc import Sequence
from typing import TextIO

from sat_jax.errors import one_line
from sat_jax.events import EventMessage, Level
from sat_jax.live.heard_stream import Heard, HeardStream
from sat_jax.live.printed_lines import describe_problem
from sat_jax.live.sources import SourceStatus
from sat_jax.streaming.scored_chunk import ScoredChunk
from sat_jax.tags import Tag, TagSelection

_QUIETEST = -60.0  # dB, the left end of the meter.
_CLIPPED = 0.999
_LEVELS_HELD = 20  # The peak of so many tenths of a second is shown.
_ENDED_SHOWN = 5
_NAME_WIDTH = 32
_BOLD, _DIM, _REVERSE = "1", "2", "1;7"
# A frame must never scroll, so lines do not wrap meanwhile.
_BEGIN, _END = "\x1b[?25l\x1b[?7l", "\x1b[?7h\x1b[?25h"


class TerminalView:
    """Draws what is heard. It is a context: leaving it gives the terminal back."""

    def __init__(
        self, stream: TextIO, *, title: str, selection: TagSelection, heard: HeardStream
    ) -> None:
        """Draws nothing yet.

        Args:
          stream: a terminal.
          title: the first line.
          selection: which tags of a chunk to show.
          heard: the stream that is shown.
        """
        self._stream, self._title, self._selection = stream, one_line(title), selection
        self._heard = heard
        self._levels = collections.deque[Level](maxlen=_LEVELS_HELD)
        self._tags: Sequence[Tag] = ()
        self._running: dict[str, EventMessage] = {}
        self._ended = collections.deque[EventMessage](maxlen=_ENDED_SHOWN)
        self._status = SourceStatus()
        self._drawn, self._width = 0, 0
        self._full, self._empty = "█░" if _can_write(stream, "█░") else "#."

    def __enter__(self) -> "TerminalView":
        """Hides the cursor."""
        self._stream.write(_BEGIN)
        return self

    def __exit__(self, *error: object) -> None:
        """Leaves the last picture where it is."""
        self._stream.write(_END)
        self._stream.flush()

    def show(self, heard: Heard) -> None:
        """Notes what was heard, see `sat_jax.live.listener.Audience`."""
        if isinstance(heard, Level):
            self._levels.append(heard)
        elif isinstance(heard, ScoredChunk):
            self._tags = self._selection.tags(heard.probs)
        elif heard.kind == "end":
            self._running.pop(heard.id, None)
            self._ended.appendleft(heard)
        else:
            self._running[heard.id] = heard

    def tick(self, status: SourceStatus) -> None:
        """Draws anew."""
        if self._status.up and not status.up:
            self._levels.clear()
        self._status = status
        size = shutil.get_terminal_size()
        lines = self.lines(size.columns, size.lines - 1)
        if size.columns != self._width:  # The terminal has moved what was there.
            home = "\x1b[2J\x1b[H" if self._drawn else ""
        else:
            home = f"\x1b[{self._drawn}F"
        self._drawn, self._width = len(lines), size.columns
        self._stream.write(home + "".join(f"{line}\x1b[K\n" for line in lines) + "\x1b[J")
        self._stream.flush()

    def lines(self, width: int, height: int) -> list[str]:
        """Returns the picture, with terminal commands for bold text and the like."""
        tags = [self._tag_line(tag, width) for tag in self._tags]
        missing = [("", "")] * (self._selection.k - len(tags))  # What is below stays in place.
        rows = [
            (self._title, _BOLD),
            ("", ""),
            (_columns("source", self._describe_source()), "" if self._status.up else _BOLD),
            self._level_line(width),
            ("", ""),
            *tags,
            *missing,
            ("", ""),
            *self._event_lines(),
        ]
        return [_style(text[:width], style) for text, style in rows[: max(1, height)]]

    def _describe_source(self) -> str:
        status = self._status
        times = "once" if status.restarts == 1 else f"{status.restarts} times"
        restarts = f", opened anew {times}" if status.restarts else ""
        problem = describe_problem(status)
        if status.up:
            return f"up{restarts}" + (f"; {problem}" if problem else "")
        return f"down{restarts}: {problem}" if problem else "waits for sound"

    def _level_line(self, width: int) -> tuple[str, str]:
        if not self._levels:
            return _columns("level", self._bar(0.0, width)), ""
        now, peak = self._levels[-1].rms, max(level.peak for level in self._levels)
        filled = 1.0 - _decibels(now) / _QUIETEST
        is_clipped = self._status.clipped or peak >= _CLIPPED
        mark = "CLIP" if is_clipped else f"peak {_decibels(peak):3.0f}"
        text = _columns("level", self._bar(filled, width), f"{_decibels(now):3.0f} dB", mark)
        return text, _REVERSE if is_clipped else ""

    def _tag_line(self, tag: Tag, width: int) -> tuple[str, str]:
        is_on = tag.label in self._heard.tracker.on
        text = _columns(tag.label, self._bar(tag.prob, width), f"{tag.prob:.2f}")
        return (f"{text}  on", _BOLD) if is_on else (text, "")

    def _event_lines(self) -> list[tuple[str, str]]:
        lines = [("events", _DIM)]
        for message in reversed(self._running.values()):
            seconds = max(0.0, self._heard.seconds - message.start)
            lines.append((f"{_event(message)}  for {_duration(seconds)}", _BOLD))
        for message in self._ended:
            lines.append((f"{_event(message)}  {_duration(message.end - message.start)}", _DIM))
        return lines

    def _bar(self, share: float, width: int) -> str:
        size = max(4, min(40, width - 54))
        filled = round(size * min(1.0, max(0.0, share)))
        return self._full * filled + self._empty * (size - filled)


def _columns(name: str, *others: str) -> str:
    return "  ".join((f"{one_line(name):<{_NAME_WIDTH}.{_NAME_WIDTH}}", *others))


def _style(text: str, style: str) -> str:
    return f"\x1b[{style}m{text}\x1b[0m" if style and text else text


def _decibels(amplitude: float) -> float:
    return max(_QUIETEST, 20.0 * math.log10(max(amplitude, 1e-9)))


def _event(message: EventMessage) -> str:
    return _columns(f"{message.time[11:19]:8}  {message.label}", f"{message.peak:.2f}")


def _duration(seconds: float) -> str:
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, whole = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{whole:02}" if hours else f"{minutes}:{whole:02}"


def _can_write(stream: TextIO, text: str) -> bool:
    try:
        text.encode(stream.encoding or "ascii")
    except (LookupError, UnicodeEncodeError):
        return False
    return True
