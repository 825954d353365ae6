"""Tags as text and files: read back by other readers, compared with the published lines."""

import csv
import io
import json
import os
import re
import stat
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from sat_jax.errors import SatError
from sat_jax.runtime.command_line import PIPE_CLOSED
from sat_jax.runtime.files import (
    atomic_write,
    open_output,
)
from sat_jax.tagging.formats import FORMATS, TagWriter, check_format
from sat_jax.tagging.options import distinct_paths
from sat_jax.tagging.score_arrays import save_scores
from sat_jax.tagging.tags import ScoredChunk, TagSelection

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


def render(format_name, chunks, *, name="a.wav", labels=LABELS, **selection):
    stream = io.StringIO()
    writer = TagWriter(
        stream, format_name=format_name, selection=TagSelection(labels=labels, **selection)
    )
    with writer.recording(name) as write:
        for chunk in chunks:
            write(chunk)
    return stream.getvalue()


# --- which tags


@pytest.mark.parametrize("seed", range(5))
def test_tags_are_those_of_a_plain_sort(seed):
    rng = np.random.default_rng(seed)
    probs = rng.integers(0, 6, 20).astype(np.float32) / 8  # many ties
    thresholds = rng.integers(0, 6, 20) / 8
    for threshold in (None, 0.25, thresholds):
        least = np.broadcast_to(-1.0 if threshold is None else threshold, 20)
        expected = sorted(
            (i for i in range(20) if probs[i] >= least[i]), key=lambda i: (-probs[i], i)
        )
        for k in (1, 3, 20, 99):
            selection = TagSelection(labels=[f"c{i}" for i in range(20)], k=k, threshold=threshold)
            tags = selection.tags(probs)
            assert [tag.index for tag in tags] == expected[:k]
            assert [tag.label for tag in tags] == [f"c{i}" for i in expected[:k]]


def test_a_probability_equal_to_the_threshold_passes():
    for threshold in (0.3, np.array([0.3])):
        selection = TagSelection(labels=["x"], threshold=threshold)
        assert len(selection.tags(np.array([0.3], np.float32))) == 1
        assert not selection.tags(np.array([np.nextafter(np.float32(0.3), 0)], np.float32))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"k": 0}, "k=0"),
        ({"threshold": 1.5}, r"1\.5"),
        ({"threshold": -0.1}, r"-0\.1"),
        ({"threshold": float("nan")}, "nan"),
        ({"threshold": np.zeros(4)}, "4"),
    ],
)
def test_selection_out_of_range(arguments, message):
    with pytest.raises(SatError, match=message):
        TagSelection(labels=LABELS, **arguments)


def test_labels_of_another_model():
    with pytest.raises(SatError, match="5 labels"):
        TagSelection(labels=LABELS).tags(np.zeros(7))


# --- text


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
    }


# --- srt


def parse_srt(text):
    cues = []
    for block in text.removesuffix("\n\n").split("\n\n") if text else []:
        number, times, *lines = block.split("\n")
        stamps = re.fullmatch(
            r"(\d\d+):(\d\d):(\d\d),(\d{3}) --> (\d\d+):(\d\d):(\d\d),(\d{3})", times
        )
        assert stamps
        h1, m1, s1, ms1, h2, m2, s2, ms2 = map(int, stamps.groups())
        assert max(m1, s1, m2, s2) < 60
        start = ((h1 * 60 + m1) * 60 + s1) * 1000 + ms1
        cues.append((int(number), start, ((h2 * 60 + m2) * 60 + s2) * 1000 + ms2, lines))
    return cues


def test_srt_cues():
    chunks = make_chunks([PUBLISHED_PROBS[0], [0.0] * 5, PUBLISHED_PROBS[1]])
    assert parse_srt(render("srt", chunks, k=2, threshold=0.1)) == [
        (1, 0, 2000, ["Stream 96 %", "Trickle, dribble 17 %"]),
        (2, 4000, 6000, ["Stream 87 %", "Ocean 31 %"]),
    ]


def test_srt_times_touch_for_hours():
    chunks = [
        ScoredChunk(start=0.16 * i, end=0.16 * (i + 1), probs=np.ones(1, np.float32))
        for i in range(22_495, 22_505)  # around one hour
    ]
    text = render("srt", chunks, labels=["x\n\ny"])
    cues = parse_srt(text)
    assert [cue[:3] for cue in cues] == [
        (n, 160 * i, 160 * (i + 1)) for n, i in enumerate(range(22_495, 22_505), 1)
    ]
    assert "01:00:00,000 -->" in text
    assert all(len(lines) == 1 for *_, lines in cues)


def test_srt_cue_always_lasts():
    chunk = ScoredChunk(start=2.0, end=2.0001, probs=np.ones(1, np.float32))
    ((_, start, end, _),) = parse_srt(render("srt", [chunk], labels=["x"]))
    assert end > start


# --- audacity


def parse_track(text):
    rows = [line.split("\t") for line in text.splitlines()]
    assert all(re.fullmatch(r"\d+\.\d{6}", time) for row in rows for time in row[:2])
    return [(float(start), float(end), label) for start, end, label in rows]


@pytest.mark.parametrize("seed", range(5))
def test_audacity_regions_are_the_runs_of_active_chunks(seed):
    rng = np.random.default_rng(seed)
    probs = rng.random((60, 5))
    thresholds = rng.random(5)
    active = probs.astype(np.float32) >= thresholds.astype(np.float32)
    text = render("audacity", make_chunks(probs, seconds=0.16), k=5, threshold=thresholds)
    regions = parse_track(text)
    painted = np.zeros_like(active)
    for start, end, label in regions:
        first, last = round(start / 0.16), round(end / 0.16)
        assert start == pytest.approx(0.16 * first, abs=1e-6)
        painted[first:last, LABELS.index(label)] = True
    np.testing.assert_array_equal(painted, active)
    runs = np.count_nonzero(np.diff(active.astype(int), axis=0, prepend=0) == 1)
    assert len(regions) == runs
    assert [end for _, end, _ in regions] == sorted(end for _, end, _ in regions)


def test_audacity_region_is_written_when_it_ends():
    stream = io.StringIO()
    selection = TagSelection(labels=["a", "b"], threshold=0.5)
    writer = TagWriter(stream, format_name="audacity", selection=selection)
    with writer.recording("x") as write:
        for chunk, count in zip(make_chunks([[1, 0], [1, 1], [0, 1]]), [0, 0, 1], strict=True):
            write(chunk)
            assert stream.getvalue().count("\n") == count
    assert parse_track(stream.getvalue()) == [(0.0, 4.0, "a"), (2.0, 6.0, "b")]


def test_audacity_does_not_bridge_gaps_nor_join_namesakes():
    chunks = [
        ScoredChunk(start=start, end=start + 2, probs=np.array(probs, np.float32))
        for start, probs in [(0, [1, 0]), (2, [0, 1]), (6, [0, 1])]
    ]
    text = render("audacity", chunks, labels=["x", "x"], threshold=0.5)
    assert parse_track(text) == [(0, 2, "x"), (2, 4, "x"), (6, 8, "x")]


def test_audacity_without_threshold_labels_each_chunk():
    text = render("audacity", make_chunks(PUBLISHED_PROBS), k=2)
    assert parse_track(text) == [
        (0, 2, "Stream 0.96"),
        (0, 2, "Trickle, dribble 0.17"),
        (2, 4, "Stream 0.87"),
        (2, 4, "Ocean 0.31"),
    ]


def test_a_broken_off_stream_keeps_its_open_regions():
    stream = io.StringIO()
    selection = TagSelection(labels=["a"], threshold=0.5)
    writer = TagWriter(stream, format_name="audacity", selection=selection)
    with pytest.raises(KeyboardInterrupt), writer.recording("x") as write:
        write(make_chunks([[1.0]])[0])
        raise KeyboardInterrupt
    assert parse_track(stream.getvalue()) == [(0, 2, "a")]


# --- all formats


class FlushedText(io.StringIO):
    """Shows only what has been flushed."""

    seen = ""

    def flush(self):
        self.seen = self.getvalue()


@pytest.mark.parametrize("format_name", FORMATS)
def test_each_chunk_is_out_at_once(format_name):
    stream = FlushedText()
    writer = TagWriter(stream, format_name=format_name, selection=TagSelection(labels=LABELS))
    with writer.recording("a.wav") as write:
        for chunk in make_chunks(PUBLISHED_PROBS):
            before = len(stream.seen)
            write(chunk)
            assert len(stream.seen) > before
            assert stream.seen == stream.getvalue()


@pytest.mark.parametrize("format_name", FORMATS)
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


def test_check_format():
    for name in FORMATS:
        check_format(name, 1)
    for name in ("text", "jsonl", "csv"):
        check_format(name, 2)
    for name in ("srt", "audacity"):
        with pytest.raises(SatError, match=r"one recording and 2 .*jsonl"):
            check_format(name, 2)
    with pytest.raises(SatError, match=r"'xml'.*audacity"):
        check_format("xml", 1)


# --- files


def test_output_replaces_only_at_success(tmp_path):
    path = tmp_path / "tags.txt"
    path.write_text("old")
    path.chmod(0o640)
    with pytest.raises(ZeroDivisionError), open_output(path) as stream:
        stream.write("half")
        raise ZeroDivisionError
    assert path.read_text() == "old"
    with open_output(path) as stream:
        stream.write("día \udcff\n")
        assert path.read_text() == "old"
    assert path.read_bytes() == "día \\udcff\n".encode()
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert os.listdir(tmp_path) == ["tags.txt"]


def test_new_file_has_the_usual_permissions(tmp_path):
    (tmp_path / "usual").touch()
    with atomic_write(tmp_path / "new") as temporary:
        temporary.write_text("x")
    assert (tmp_path / "new").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_output_follows_links_and_takes_long_names(tmp_path):
    (tmp_path / "target").write_text("old")
    (tmp_path / "link").symlink_to("target")
    for name in ("link", "n" * 255):
        with open_output(tmp_path / name) as stream:
            stream.write("new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_text() == (tmp_path / ("n" * 255)).read_text() == "new"


def test_output_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path / "no" / "such" / "tags.txt", tmp_path / "file" / "tags.txt", tmp_path):
        with pytest.raises(SatError, match=re.escape(str(path))), open_output(path):
            pass


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs Linux's /dev/full")
def test_devices_are_written_not_replaced():
    selection = TagSelection(labels=LABELS)
    with open_output(os.devnull) as stream:
        TagWriter(stream, format_name="csv", selection=selection)
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode)
    with pytest.raises(SatError, match="No space left"), open_output("/dev/full") as stream:
        TagWriter(stream, format_name="csv", selection=selection)


@pytest.mark.parametrize("path", [None, "-"])
def test_output_is_standard_output(path, capsys):
    with open_output(path) as stream:
        stream.write("hello\n")
    assert capsys.readouterr().out == "hello\n"


PROGRAM = """
import numpy as np
from sat_jax.runtime.command_line import Program
from sat_jax.runtime.files import open_output
from absl import flags
from sat_jax.tagging.formats import TagWriter
from sat_jax.tagging.tags import ScoredChunk, TagSelection
def main(arguments):
    with open_output(None) as stream:
        writer = TagWriter(stream, format_name="text", selection=TagSelection(labels=["é"]))
        with writer.recording("日本") as write:
            for i in range(COUNT):
                write(ScoredChunk(start=i, end=i + 1, probs=np.ones(1, np.float32)))
Program(main=main, flag_values=flags.FlagValues(), doc="").run("tags", [])
"""

PRINT_AT_EXIT = "import atexit; atexit.register(print, 'the end')\n"


def start_program(count, *, first="", **options):
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", first + PROGRAM.replace("COUNT", str(count))],
        cwd=Path(__file__).parents[2],
        stderr=subprocess.PIPE,
        **options,
    )


def test_closed_pipe_ends_quietly():
    with start_program(200_000, first=PRINT_AT_EXIT, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == PIPE_CLOSED


def test_terminal_that_cannot_show_a_name():
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    with start_program(1, stdout=subprocess.PIPE, env=environment) as process:
        out, err = process.communicate()
    assert (process.returncode, err) == (0, b"")
    assert out.splitlines()[0] == rb"===== \u65e5\u672c ====="


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs Linux's /dev/full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_full_disk_behind_standard_output(unbuffered):
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    with (
        open("/dev/full", "wb") as full,
        start_program(1, stdout=full, env=environment) as process,
    ):
        (line,) = process.stderr.read().decode().splitlines()
        assert process.wait() == 1
    assert line.startswith("tags: cannot write the tags: No space left on device; ")


def test_report_is_light_to_import():
    code = (
        "import sys, sat_jax.plots.recording, sat_jax.tagging.formats\n"
        "assert not {'matplotlib', 'jax', 'librosa'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=True)


# --- scores


def test_scores_read_back(tmp_path):
    chunks = make_chunks(np.random.default_rng(0).random((4, 5)), seconds=0.16)
    path = tmp_path / "made" / "for it" / "día.npz"
    for _ in range(2):
        save_scores(path, chunks=chunks, labels=LABELS)
    with np.load(path, allow_pickle=False) as scores:
        assert sorted(scores) == ["end", "labels", "probs", "start"]
        assert scores["probs"].dtype == np.float32
        np.testing.assert_array_equal(scores["probs"], [chunk.probs for chunk in chunks])
        np.testing.assert_allclose(scores["start"], 0.16 * np.arange(4))
        np.testing.assert_allclose(scores["end"], 0.16 * np.arange(1, 5))
        assert scores["labels"].tolist() == LABELS
    assert os.listdir(path.parent) == ["día.npz"]


def test_scores_of_no_chunk(tmp_path):
    save_scores(tmp_path / "a.npz", chunks=[], labels=LABELS)
    with np.load(tmp_path / "a.npz") as scores:
        assert scores["probs"].shape == (0, 5)
        assert scores["start"].shape == scores["end"].shape == (0,)


def test_scores_into_a_file_for_a_folder(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(SatError, match=r"a\.npz"):
        save_scores(tmp_path / "file" / "a.npz", chunks=[], labels=LABELS)


def test_distinct_paths():
    sources = ["x/a.wav", "y/a.flac", "a_2.wav", "A.mp3", "-", "z/a.wav", "b.tar.gz", "stdin.wav"]
    paths = distinct_paths("out", sources, suffix=".npz")
    assert [path.name for path in paths] == [
        "a.npz",
        "a_3.npz",
        "a_2.npz",
        "A_4.npz",
        "stdin.npz",
        "a_5.npz",
        "b.tar.npz",
        "stdin_2.npz",
    ]
    assert {path.parent for path in paths} == {Path("out")}
