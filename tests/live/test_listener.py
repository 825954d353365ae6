"""What those who listen are shown: lines, a picture on a terminal, and the state of the source."""

import io
import json
import threading
import time

import numpy as np
import pytest

from sat_jax.errors import SatError
from sat_jax.events import EventMessage, Level
from sat_jax.live import terminal_view
from sat_jax.live.heard_stream import HeardStream
from sat_jax.live.listener import listen
from sat_jax.live.printed_lines import EventLines, StatusLines, TagLines
from sat_jax.live.sources import Gap, SourceStatus
from sat_jax.live.terminal_view import TerminalView
from sat_jax.streaming.scored_chunk import ScoredChunk
from sat_jax.tags import TagSelection
from tests.live.test_heard_stream import stream_of_tones, tones
from tests.support.screen import Screen


class FakeSource:
    """Plays pieces; a number is a pause of so many seconds, an error is raised."""

    def __init__(self, *pieces: object) -> None:
        self.status = SourceStatus(up=True)
        self._pieces, self.is_stopped = pieces, threading.Event()

    def sound(self, sample_rate: int):
        for piece in self._pieces:
            if isinstance(piece, float):
                self.is_stopped.wait(piece)
            elif isinstance(piece, Exception):
                raise piece
            else:
                yield piece

    def stop(self) -> None:
        self.is_stopped.set()


class Notes:
    """Keeps what it is shown."""

    def __init__(self) -> None:
        self.heard: list = []
        self.ticks = 0

    def show(self, heard) -> None:
        self.heard.append(heard)

    def tick(self, status) -> None:
        self.ticks += 1

    @property
    def ends(self) -> list[str]:
        return [e.reason for e in self.heard if isinstance(e, EventMessage) and e.kind == "end"]


def test_all_is_heard_to_the_end() -> None:
    source, notes = FakeSource(tones(1, seconds=4), Gap(0.9), tones(seconds=2)), Notes()
    listen(source, stream_of_tones(), notes)
    assert notes.ends == ["closed"] and source.is_stopped.is_set()
    assert [c.end for c in notes.heard if isinstance(c, ScoredChunk)] == [
        2.0,
        4.0,
        6.0,
        pytest.approx(6.9),
    ]
    assert notes.ticks == 4


def test_events_end_without_a_signal_and_begin_again() -> None:
    source = FakeSource(tones(1, seconds=4), 0.7, Gap(0.7), tones(1, 2, seconds=6))
    notes = Notes()
    listen(source, stream_of_tones(), notes, stale_after=0.3)
    assert notes.ends == ["no_signal", "closed"]
    starts = [e.start for e in notes.heard if isinstance(e, EventMessage) and e.kind == "start"]
    assert starts == [2.0, pytest.approx(6.7)]


def test_an_error_of_the_source_is_raised_after_all_has_been_told() -> None:
    notes = Notes()
    with pytest.raises(SatError, match="damaged"):
        listen(FakeSource(tones(1, seconds=4), SatError("damaged")), stream_of_tones(), notes)
    assert notes.ends == ["closed"]


def test_an_error_of_the_audience_stops_the_source() -> None:
    class Gone(Notes):
        def show(self, heard) -> None:
            raise BrokenPipeError

    source = FakeSource(tones(1, seconds=4), 60.0)
    with pytest.raises(BrokenPipeError):
        listen(source, stream_of_tones(), Gone())
    assert source.is_stopped.is_set()


def test_lines_are_those_of_tag_with_the_time() -> None:
    stream, output = stream_of_tones(), io.StringIO()
    selection = TagSelection(labels=["Tone"], k=1)
    lines = TagLines(output, "mic:x", print, selection=selection, heard=stream)
    began = time.time()
    listen(FakeSource(tones(1, seconds=4)), stream, lines)
    name, first, empty, second, *_ = output.getvalue().splitlines()
    assert (name, empty) == ("===== mic:x =====", "")
    assert first.startswith(time.strftime("[%Y-%m-%dT", time.localtime(began)))
    assert second.endswith("Topk-1 Tone                           0.9000")


def test_events_are_json_lines() -> None:
    output = io.StringIO()
    listen(FakeSource(tones(1, seconds=4)), stream_of_tones(), EventLines(output, "x", print))
    start, end = map(json.loads, output.getvalue().splitlines())
    assert (start["kind"], start["id"], end["kind"]) == ("start", end["id"], "end")
    assert end["time"] and end["reason"] == "closed"


def test_the_state_of_a_source_is_told_once() -> None:
    told: list[str] = []
    lines = StatusLines("cam", told.append)
    for status in (
        SourceStatus(),
        SourceStatus(error="refused"),
        SourceStatus(error="refused", restarts=1),
        SourceStatus(),
        SourceStatus(up=True, restarts=2),
        SourceStatus(up=True, restarts=2),
        SourceStatus(up=True, silent=True),
    ):
        lines.tick(status)
    assert len(told) == 3 and told[0] == "cam: refused" and "again" in told[1]


@pytest.fixture
def view(monkeypatch) -> TerminalView:
    monkeypatch.setattr(terminal_view.shutil, "get_terminal_size", lambda: SIZE[0])
    SIZE[:] = [type("Size", (), {"columns": 80, "lines": 24})]
    stream = stream_of_tones()
    output = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    selection = TagSelection(labels=["Tone", "Other"], k=2)
    return TerminalView(output, title="cam", selection=selection, heard=stream)


SIZE: list = []


def seen(view: TerminalView) -> Screen:
    view._stream.flush()
    return Screen(view._stream.buffer.getvalue().decode(view._stream.encoding))


def hear(view: TerminalView, stream: HeardStream, sound: np.ndarray) -> None:
    for heard in stream.push(sound, arrived=1e9):
        view.show(
            ScoredChunk(start=heard.start, end=heard.end, probs=np.array([*heard.probs, 0.25]))
            if isinstance(heard, ScoredChunk)
            else heard
        )


def test_a_person_sees_level_tags_and_events(view) -> None:
    with view:
        view.tick(SourceStatus())
        assert "waits for sound" in seen(view).lines[2]
        hear(view, view._heard, tones(1, seconds=5))
        view.tick(SourceStatus(up=True))
        screen = seen(view)
        level, tone, other = (
            next(r for r in screen.lines if w in r) for w in ("level", "Tone", "Other")
        )
        assert "-40 dB" in level and "peak" in level
        assert tone.endswith("0.90  on") and tone.count("█") == 23
        assert other.endswith("0.25") and other.count("█") == 6
        event = screen.lines[screen.lines.index("events") + 1]
        assert event.endswith("Tone                    0.90  for 3 s")
        assert not screen.is_restored
        before = len(screen.lines)
        hear(view, view._heard, tones(seconds=5))
        view.tick(SourceStatus(error="refused", restarts=3))
    screen = seen(view)
    assert screen.is_restored and len(screen.lines) == before
    assert "down, opened anew 3 times: refused" in screen.lines[2]
    assert screen.lines[screen.lines.index("events") + 1].endswith("0.90  2 s")


def test_clipping_is_marked(view) -> None:
    view.show(Level(0.0, 0.1, 0.5, 1.0))
    view.tick(SourceStatus(up=True))
    assert "CLIP" in seen(view).lines[3]
    for _ in range(20):
        view.show(Level(0.0, 0.1, 0.5, 0.5))
    view.tick(SourceStatus(up=True))
    assert "CLIP" not in seen(view).lines[3]


@pytest.mark.parametrize(("columns", "lines"), [(1, 1), (20, 5), (40, 9), (300, 80)])
def test_a_picture_fits_any_terminal(columns: int, lines: int, view) -> None:
    SIZE[0].columns, SIZE[0].lines = columns, lines
    hear(view, view._heard, tones(1, seconds=5))
    for _ in range(3):
        view.tick(SourceStatus(up=True, error="something" * 9))
    shown = seen(view).lines
    assert max(map(len, shown)) <= columns and len(shown) <= max(2, lines)
    SIZE[0].columns = 30
    view.tick(SourceStatus(up=True))
    assert max(map(len, seen(view).lines)) <= 30


def test_a_terminal_without_blocks_gets_signs(view) -> None:
    ascii_output = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    poor = TerminalView(
        ascii_output, title="cam", selection=view._selection, heard=stream_of_tones()
    )
    poor.show(Level(0.0, 0.1, 0.1, 0.1))
    poor.tick(SourceStatus(up=True))
    assert "##" in seen(poor).lines[3]
