"""Tags as text: read back by other readers, and compared with the published lines."""

import csv
import io
import json
import re
from datetime import UTC, datetime
from fractions import Fraction

import numpy as np
import pytest

from sat_jax.labels import audioset_ids
from sat_jax.streaming.scored_chunk import ScoredChunk
from sat_jax.tagging.formats import FORMATS
from sat_jax.tagging.writers import TagWriter
from sat_jax.tags import TagSelection

TAG_FORMATS = [name for name, each in FORMATS.items() if not each.tells_events]
LABELS = ["Stream", "Trickle, dribble", "Boat, Water vehicle", "Ocean", "Waves, surf"]

# Lines of the published README.
PUBLISHED = """\
===== samples/jkLRith2wcc.wav =====
[0.0s]-[2.0s] Topk-1 Stream                         0.9582
[0.0s]-[2.0s] Topk-2 Trickle, dribble               0.1661
[0.0s]-[2.0s] Topk-3 Boat, Water vehicle            0.1254

[2.0s]-[4.0s] Topk-1 Stream                         0.8668
[2.0s]-[4.0s] Topk-2 Ocean                          0.3082
[2.0s]-[4.0s] Topk-3 Waves, surf                    0.2931

"""
PUBLISHED_PROBS = [[0.9582, 0.1661, 0.1254, 0.01, 0.0], [0.8668, 0.1, 0.02, 0.3082, 0.2931]]


def make_chunks(probs, seconds=2.0):
    return [
        ScoredChunk(start=i * seconds, end=(i + 1) * seconds, probs=np.asarray(row, np.float32))
        for i, row in enumerate(probs)
    ]


def render(format_name, chunks, *, name="a.wav", labels=LABELS, began=None, **selection):
    stream = io.StringIO()
    writer = TagWriter(
        stream, format_name=format_name, selection=TagSelection(labels=labels, **selection)
    )
    with writer.recording(name, began) as write:
        for chunk in chunks:
            write(chunk)
    return stream.getvalue()


def test_text_is_the_published_layout():
    chunks = make_chunks(PUBLISHED_PROBS)
    assert render("text", chunks, name="samples/jkLRith2wcc.wav") == PUBLISHED


def test_text_times_have_no_float_noise():
    chunks = [
        ScoredChunk(start=0.16 * i, end=0.16 * (i + 1), probs=np.ones(1, np.float32))
        for i in range(2000)
    ]
    spans = re.findall(r"\[([\d.]+)s\]-\[([\d.]+)s\]", render("text", chunks, labels=["x"]))
    assert spans[:2] == [("0.0", "0.16"), ("0.16", "0.32")]
    assert spans[4] == ("0.64", "0.8")
    exact = [Fraction(16, 100) * i for i in range(2001)]
    assert [Fraction(start) for start, _ in spans] == exact[:-1]
    assert [Fraction(end) for _, end in spans] == exact[1:]


def test_text_long_labels_and_numpy_times():
    chunk = ScoredChunk(
        start=np.float64(7.0), end=np.float64(7.7715625), probs=np.array([0.5], np.float32)
    )
    label = "Bird vocalization, bird call, bird song"
    line = render("text", [chunk], labels=[label]).splitlines()[1]
    assert line == f"[7.0s]-[7.772s] Topk-1 {label} 0.5000"


def test_text_with_threshold_leaves_out_quiet_chunks():
    chunks = make_chunks([*PUBLISHED_PROBS, [0.1] * 5])
    lines = render("text", chunks, threshold=0.3).splitlines()
    assert [line[:30].rstrip() for line in lines] == [
        "===== a.wav =====",
        "[0.0s]-[2.0s] Topk-1 Stream",
        "",
        "[2.0s]-[4.0s] Topk-1 Stream",
        "[2.0s]-[4.0s] Topk-2 Ocean",
        "",
    ]


def test_text_cannot_be_broken_by_names():
    text = render("text", make_chunks([[1.0]]), name="a\n\x1b[31mb", labels=["x\ty\r\nz"])
    assert text.count("\n") == 3
    assert "\x1b" not in text
    assert "x y  z" in text


# --- jsonl and csv


def test_jsonl_reads_back_exactly():
    rng = np.random.default_rng(0)
    chunks = make_chunks([*rng.random((6, 5)), np.zeros(5)], seconds=0.16)
    name = '日本/día \udcff,"q"\n.wav'
    text = render("jsonl", chunks, name=name, k=2, threshold=0.05)
    assert text.isascii()
    records = [json.loads(line) for line in text.splitlines()]
    assert len(records) == len(chunks)
    for i, (record, chunk) in enumerate(zip(records, chunks, strict=True)):
        assert record["file"] == name
        assert record["start"] == round(0.16 * i, 6)
        assert record["end"] == round(0.16 * (i + 1), 6)
        assert len(record["tags"]) == (2 if i < 6 else 0)
        for tag in record["tags"]:
            assert tag["label"] == LABELS[tag["index"]]
            assert tag["id"] == audioset_ids(LABELS)[tag["index"]]
            assert np.float32(tag["prob"]) == chunk.probs[tag["index"]]
    assert '"prob": 0.9582' in render("jsonl", make_chunks(PUBLISHED_PROBS))


def test_csv_reads_back_exactly():
    chunks = make_chunks(PUBLISHED_PROBS)
    stream = io.StringIO()
    writer = TagWriter(stream, format_name="csv", selection=TagSelection(labels=LABELS))
    names = ["a, b.wav", 'c"d\n.wav']
    for name in names:
        with writer.recording(name) as write:
            for chunk in chunks:
                write(chunk)
    rows = list(csv.DictReader(io.StringIO(stream.getvalue(), newline="")))
    assert len(rows) == 2 * 2 * 3
    assert {row["file"] for row in rows} == set(names)
    assert rows[1] == {
        "file": "a, b.wav",
        "start": "0.0",
        "end": "2.0",
        "rank": "2",
        "label": "Trickle, dribble",
        "prob": "0.1661",
        "id": "/m/07pqc89",
        "time": "",
    }


def test_dates_and_times():
    chunks, began = make_chunks(PUBLISHED_PROBS), datetime(2026, 12, 31, 23, 59, 59, tzinfo=UTC)
    starts = ["2026-12-31T23:59:59.000+00:00", "2027-01-01T00:00:01.000+00:00"]
    rows = list(csv.DictReader(io.StringIO(render("csv", chunks, began=began))))
    assert [row["time"] for row in rows[::3]] == starts
    assert [row["start"] for row in rows[::3]] == ["0.0", "2.0"]
    lines = [json.loads(line) for line in render("jsonl", chunks, began=began).splitlines()]
    assert [line["time"] for line in lines] == starts
    assert "time" not in json.loads(render("jsonl", chunks[:1]))
    text = render("text", chunks, began=began).splitlines()
    assert text[1].startswith(f"[{starts[0]}]-[{starts[1]}] Topk-1 Stream ")


# --- all formats


class FlushedText(io.StringIO):
    """Shows only what has been flushed."""

    seen = ""

    def flush(self):
        self.seen = self.getvalue()


@pytest.mark.parametrize("format_name", TAG_FORMATS)
def test_each_chunk_is_out_at_once(format_name):
    stream = FlushedText()
    writer = TagWriter(stream, format_name=format_name, selection=TagSelection(labels=LABELS))
    with writer.recording("a.wav") as write:
        for chunk in make_chunks(PUBLISHED_PROBS):
            before = len(stream.seen)
            write(chunk)
            assert len(stream.seen) > before
            assert stream.seen == stream.getvalue()


@pytest.mark.parametrize("format_name", TAG_FORMATS)
def test_second_recording_starts_afresh(format_name):
    chunks = make_chunks(PUBLISHED_PROBS)
    stream = io.StringIO()
    selection = TagSelection(labels=LABELS, threshold=0.1)
    writer = TagWriter(stream, format_name=format_name, selection=selection)
    for _ in range(2):
        with writer.recording("a.wav") as write:
            for chunk in chunks:
                write(chunk)
    header = FORMATS[format_name].header
    once = render(format_name, chunks, threshold=0.1).removeprefix(header)
    assert stream.getvalue() == header + once + once


@pytest.mark.parametrize("format_name", TAG_FORMATS)
def test_times_of_a_stream_of_forty_days_are_exact(format_name):
    day40 = 40 * 86_400
    chunk = ScoredChunk(start=day40, end=(day40 * 16_000 + 2560) / 16_000, probs=np.ones(1))
    text = render(format_name, [chunk], labels=["a"])
    assert "3456000" in text and "3456000.16" in text
