"""Events as text: read back by other readers, and compared with the definition of events."""

import csv
import io
import json
import re
from datetime import UTC, datetime

import numpy as np
import pytest

from sat_jax.errors import SatError
from sat_jax.events import Rule, Watch, find_events, watched_sounds
from sat_jax.streaming.scored_chunk import ScoredChunk
from sat_jax.tagging.formats import FORMATS, check_format
from sat_jax.tagging.selections import EventSelection
from sat_jax.tagging.writers import TagWriter

LABELS = ["Ocean", "Rain", "Cheering", "x\n\ty"]
EVENT_FORMATS = [name for name, each in FORMATS.items() if each.tells_events]
ORDERED = ["srt", "audacity", "raven"]
RULE = Rule(on=0.6, off=0.3, min_on=0.4, min_off=0.5)


def make_chunks(probs, seconds=0.16):
    return [
        ScoredChunk(start=i * seconds, end=(i + 1) * seconds, probs=np.asarray(row, np.float32))
        for i, row in enumerate(probs)
    ]


def make_selection(rule=RULE, labels=LABELS, **settings):
    rules = {"on": rule.on, "off": rule.off_score, "min_on": rule.min_on, "min_off": rule.min_off}
    sounds = watched_sounds(Watch(rule=rules), labels)
    return EventSelection(sounds=sounds, sample_rate=16_000, **settings)


def random_probs(seed, count=120):
    """Scores that go up and down within seconds."""
    rng = np.random.default_rng(seed)
    steps = rng.normal(0.0, 0.8, (count, len(LABELS))).cumsum(0)
    return 0.5 + 0.45 * np.sin(steps)


def expected_events(probs, rule=RULE, seconds=0.16):
    """(start, end, label, event) of all classes by the definition, ordered by start and end."""
    times = np.arange(len(probs) + 1) * seconds
    return sorted(
        (
            (event.start, event.end, label.replace("\n\t", "  "), event)
            for label, scores in zip(LABELS, np.float32(probs).T, strict=True)
            for event in find_events(scores, times, rule)
        ),
        key=lambda each: each[:2],
    )


def render(format_name, chunks, *, name="a.wav", began=None, selection=None):
    stream = io.StringIO()
    writer = TagWriter(stream, format_name=format_name, selection=selection or make_selection())
    with writer.recording(name, began) as write:
        for chunk in chunks:
            write(chunk)
    return stream.getvalue()


def parse_srt(text):
    """(start, end, label, peak) of each cue, in seconds."""
    cues = []
    for count, block in enumerate(text.removesuffix("\n\n").split("\n\n") if text else [], 1):
        number, times, line = block.split("\n")
        assert int(number) == count
        stamps = re.fullmatch(
            r"(\d\d+):(\d\d):(\d\d),(\d{3}) --> (\d\d+):(\d\d):(\d\d),(\d{3})", times
        )
        h1, m1, s1, ms1, h2, m2, s2, ms2 = map(int, stamps.groups())
        assert max(m1, s1, m2, s2) < 60
        label, peak = re.fullmatch(r"(.*) (\d+) %", line).groups()
        start, end = (h1 * 60 + m1) * 60 + s1 + ms1 / 1e3, (h2 * 60 + m2) * 60 + s2 + ms2 / 1e3
        cues.append((start, end, label, int(peak) / 100))
    return cues


def parse_audacity(text):
    rows = [line.split("\t") for line in text.splitlines()]
    assert all(re.fullmatch(r"\d+\.\d{6}", time) for row in rows for time in row[:2])
    return [(float(start), float(end), label, None) for start, end, label in rows]


def parse_raven(text):
    rows = list(csv.DictReader(io.StringIO(text), delimiter="\t", quoting=csv.QUOTE_NONE))
    assert [int(row["Selection"]) for row in rows] == list(range(1, len(rows) + 1))
    for row in rows:
        assert (row["View"], row["Channel"]) == ("Spectrogram 1", "1")
        assert (float(row["Low Freq (Hz)"]), float(row["High Freq (Hz)"])) == (0.0, 8_000.0)
    return [
        (
            float(row["Begin Time (s)"]),
            float(row["End Time (s)"]),
            row["Annotation"],
            float(row["Confidence"]),
        )
        for row in rows
    ]


PARSERS = {"srt": parse_srt, "audacity": parse_audacity, "raven": parse_raven}


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("format_name", ORDERED)
def test_entries_are_the_events_of_the_definition_in_the_order_of_their_starts(format_name, seed):
    probs = random_probs(seed)
    found = PARSERS[format_name](render(format_name, make_chunks(probs)))
    expected = expected_events(probs)
    assert len(expected) > 10
    assert [start for start, *_ in found] == sorted(start for start, *_ in found)
    # Those that start together come in any order.
    for ours, theirs in zip(sorted(found, key=lambda e: e[:3]), sorted(expected), strict=True):
        assert ours[:2] == pytest.approx(theirs[:2], abs=6e-4)
        assert ours[2] == theirs[2]
        assert ours[3] is None or ours[3] == pytest.approx(theirs[3].peak, abs=6e-3)


@pytest.mark.parametrize("format_name", ORDERED)
def test_an_entry_waits_only_while_an_earlier_event_goes_on(format_name):
    # Ocean goes on while rain ends. Cheering begins with the second rain.
    probs = [[1, 0, 0, 0], [1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0], [0, 1, 1, 0], [0, 0, 1, 0]]
    probs += [[0, 0, 1, 0], [0, 0, 0, 0]]
    selection = make_selection(Rule(min_off=0.0))
    stream, sizes = io.StringIO(), []
    writer = TagWriter(stream, format_name=format_name, selection=selection)
    with writer.recording("x") as write:
        for chunk in make_chunks(probs, 2.0):
            write(chunk)
            sizes.append(len(PARSERS[format_name](stream.getvalue())))
    # Of events that start together the first to end is told first.
    assert sizes == [0, 0, 0, 2, 2, 3, 3, 4]
    rows = [row[:3] for row in PARSERS[format_name](stream.getvalue())]
    assert rows == [(0, 6, "Ocean"), (2, 4, "Rain"), (8, 10, "Rain"), (8, 14, "Cheering")]


def test_messages_and_rows_tell_the_same_events():
    probs, name = random_probs(7), '日本/día \udcff,"q"\n.wav'
    began = datetime(2026, 12, 31, 23, 59, 59, tzinfo=UTC)
    text = render("events", make_chunks(probs), name=name, began=began)
    assert text.isascii()
    messages = [json.loads(line) for line in text.splitlines()]
    assert {message["file"] for message in messages} == {name}
    assert list(messages[0])[:2] == ["file", "type"]
    ends = [message for message in messages if message["kind"] == "end"]
    expected = expected_events(probs)
    assert len(ends) == len(expected)
    assert [each["id"] for each in messages if each["kind"] == "start"]
    assert all(message["id"].startswith('día \udcff,"q"\n.wav.') for message in messages)
    rows = list(
        csv.DictReader(
            io.StringIO(render("events-csv", make_chunks(probs), name=name, began=began))
        )
    )
    for row, end in zip(rows, ends, strict=True):
        assert (row["file"], row["label"], row["id"]) == (name, end["label"], end.get("mid", ""))
        assert (float(row["start"]), float(row["end"])) == (end["start"], end["end"])
        assert (float(row["peak"]), float(row["mean"])) == (end["peak"], end["mean"])
        assert (row["time"], row["reason"]) == (end["time"], end["reason"])
        seconds = (datetime.fromisoformat(row["time"]) - began).total_seconds()
        assert seconds == pytest.approx(end["start"], abs=6e-4)
    assert rows[0]["time"].startswith("20") and "time" not in render("events", make_chunks(probs))


def test_an_event_is_told_when_it_starts_and_when_it_has_ended():
    stream, kinds = io.StringIO(), []
    selection = make_selection(Rule(min_off=2.0))
    writer = TagWriter(stream, format_name="events", selection=selection)
    with writer.recording("x") as write:
        for chunk in make_chunks([[1, 0, 0, 0], [0] * 4, [0] * 4, [1, 0, 0, 0]], 2.0):
            write(chunk)
            kinds.append([json.loads(each)["kind"] for each in stream.getvalue().splitlines()])
    assert kinds == [["start"], ["start", "end"], ["start", "end"], ["start", "end", "start"]]
    assert json.loads(stream.getvalue().splitlines()[-1])["reason"] == "closed"


@pytest.mark.parametrize("format_name", EVENT_FORMATS)
def test_a_broken_off_stream_keeps_its_events(format_name):
    stream = io.StringIO()
    writer = TagWriter(stream, format_name=format_name, selection=make_selection())
    with pytest.raises(KeyboardInterrupt), writer.recording("x") as write:
        write(make_chunks([[1, 0, 0, 0]], 2.0)[0])
        raise KeyboardInterrupt
    assert "Ocean" in stream.getvalue()


@pytest.mark.parametrize("format_name", EVENT_FORMATS)
def test_second_recording_starts_afresh(format_name):
    chunks, stream = make_chunks(random_probs(3)), io.StringIO()
    writer = TagWriter(stream, format_name=format_name, selection=make_selection())
    for _ in range(2):
        with writer.recording("a.wav") as write:
            for chunk in chunks:
                write(chunk)
    header = FORMATS[format_name].header
    once = render(format_name, chunks).removeprefix(header)
    assert once and stream.getvalue() == header + once + once


@pytest.mark.parametrize("format_name", EVENT_FORMATS)
def test_chunks_that_are_mostly_padding_have_no_events(format_name):
    chunks = [ScoredChunk(start=2.0, end=2.05, probs=np.ones(4, np.float32))]
    assert render(format_name, chunks, selection=make_selection(shortest=0.08)) == (
        FORMATS[format_name].header
    )


def test_srt_cue_always_lasts():
    rule = Rule(on=0.6, off=0.3, min_off=0.5)
    chunk = ScoredChunk(start=2.0, end=2.0001, probs=np.array([1, 0, 0, 0], np.float32))
    ((start, end, _, _),) = parse_srt(render("srt", [chunk], selection=make_selection(rule)))
    assert end > start


@pytest.mark.parametrize("format_name", EVENT_FORMATS)
def test_times_of_a_stream_of_forty_days_are_exact(format_name):
    day40 = 40 * 86_400
    chunk = ScoredChunk(
        start=day40, end=(day40 * 16_000 + 8960) / 16_000, probs=np.array([1, 0, 0, 0], np.float32)
    )
    text = render(format_name, [chunk])
    start, end = (
        ("960:00:00,000", "960:00:00,560") if format_name == "srt" else ("3456000", "3456000.56")
    )
    assert start in text and end in text


def test_check_format():
    for name in FORMATS:
        check_format(name, 1)
        if name not in ORDERED:
            check_format(name, 2)
            continue
        with pytest.raises(SatError, match=name):
            check_format(name, 2)
    with pytest.raises(SatError, match="xml"):
        check_format("xml", 1)
