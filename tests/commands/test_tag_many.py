"""sat-jax tag with many recordings: folders, a file for each, several at once, stops."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from absl.testing import flagsaver

from sat_jax.commands import tag
from sat_jax.config import ModelConfig
from sat_jax.labels import default_label_names
from sat_jax.models.transformer import init_variables
from sat_jax.tagging import one_recording
from sat_jax.tagging.formats import FORMATS
from sat_jax.weights.checkpoint import Checkpoint, save_checkpoint

TINY = ModelConfig(width=64, depth=1, num_classes=5, target_length=32, cache_length=32)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    import jax

    folder = tmp_path_factory.mktemp("models") / "tiny"
    variables = init_variables(TINY, jax.random.key(0))
    labels = default_label_names(TINY.num_classes)
    save_checkpoint(folder, Checkpoint(config=TINY, variables=variables, labels=labels))
    return str(folder)


@pytest.fixture(autouse=True)
def _shared_programs(_own_cache_folder, request, monkeypatch, tmp_path_factory):
    kept = getattr(request.config, "cache", None)
    folder = kept.mkdir("tag") if kept else tmp_path_factory.getbasetemp() / "tag"
    monkeypatch.setenv("SAT_JAX_CACHE", str(folder))


@pytest.fixture
def day(tmp_path, monkeypatch):
    """Recordings of several lengths in folders; cut.flac is damaged."""
    monkeypatch.chdir(tmp_path)
    for seed, (name, seconds) in enumerate(
        [("a.wav", 2.0), ("a.flac", 0.4), ("cut.flac", 2.0), ("n/b.wav", 0.7), ("n/m/c.wav", 1.1)]
    ):
        path = Path("day", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = 0.1 * np.random.default_rng(seed).standard_normal(round(seconds * 16_000))
        soundfile.write(path, noise, 16_000)
    cut = Path("day/cut.flac")
    cut.write_bytes(cut.read_bytes()[:40_000])
    return tmp_path


WHOLE = ("a.flac", "a.wav", "n/b.wav", "n/m/c.wav")
ORDER = ("a.flac", "a.wav", "cut.flac", "n/b.wav", "n/m/c.wav")


def run(*arguments):
    """Runs the command in this process; returns its exit code."""
    with flagsaver.flagsaver(), pytest.raises(SystemExit) as stop:
        tag.PROGRAM.run_parsed(tag.PROGRAM.parse(["sat-jax tag", *map(str, arguments)]))
    return stop.value.code


def files_in(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in Path(folder).rglob("*")
        if path.is_file()
    }


def test_jobs_change_no_bit_and_no_order(tiny, day, capsys):
    printed = []
    for jobs in (1, 3):
        flags = ("--format", "csv", "--scores_out", f"scores{jobs}", "--jobs", jobs)
        assert run("-m", tiny, "--recursive", *flags, "day") == 1
        captured = capsys.readouterr()
        assert captured.err.startswith("sat-jax tag: day/cut.flac: ")
        assert captured.err.count("\n") == 1
        printed.append(captured.out)
    assert printed[0] == printed[1]
    names = [line.split(",")[0] for line in printed[0].splitlines()[1:]]
    assert list(dict.fromkeys(names)) == [f"day/{name}" for name in ORDER]
    one, several = (dict(np.load(f"scores{jobs}/n/m/c.npz")) for jobs in (1, 3))
    np.testing.assert_array_equal(one["probs"], several["probs"])
    assert files_in("scores1").keys() == files_in("scores3").keys()
    assert set(files_in("scores1")) == {"a.npz", "a_2.npz", "cut.npz", "n/b.npz", "n/m/c.npz"}


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_for_each_recording_holds_what_it_gives_alone(name, tiny, day, capsys):
    flags = ("-m", tiny, "--format", name, "--threshold", "0.3")
    Path("day/cut.flac").unlink()
    assert run(*flags, "--recursive", "--output_dir", "out", "day") == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("sat-jax tag: 4 tagged; ") and captured.err.count("\n") == 1
    want = {}
    for each in WHOLE:
        assert run(*flags, f"day/{each}") == 0
        want[each + FORMATS[name].suffix] = capsys.readouterr().out.encode()
    assert files_in("out") == want


def test_a_damaged_recording_is_not_done(tiny, day, capsys):
    arguments = ("-m", tiny, "--recursive", "--format", "jsonl", "--output_dir", "out", "day")
    assert run(*arguments) == 1
    err = capsys.readouterr().err
    assert "day/cut.flac: " in err and "4 tagged, 1 failed" in err
    done = {f"{name}.jsonl" for name in WHOLE}
    before = files_in("out")
    assert set(before) == done | {"cut.flac.partial.jsonl"}
    assert len(before["cut.flac.partial.jsonl"].splitlines()) >= 3

    Path("out/n/b.wav.jsonl").unlink()
    assert run(*arguments, "--skip_existing") == 1
    assert "1 tagged, 3 skipped, 1 failed" in capsys.readouterr().err
    assert files_in("out") == before

    shutil.copy("day/a.flac", "day/cut.flac")
    assert run(*arguments, "--skip_existing") == 0
    assert "1 tagged, 4 skipped" in capsys.readouterr().err
    after = files_in("out")
    assert set(after) == done | {"cut.flac.jsonl"}
    assert json.loads(after["cut.flac.jsonl"].splitlines()[0])["file"] == "day/cut.flac"


def test_existing_results_are_not_touched(tiny, day):
    Path("out/n").mkdir(parents=True)
    Path("out/n/b.wav.txt").write_text("mine")
    flags = ("-m", tiny, "--output_dir", "out", "--skip_existing", "--scores_out", "scores")
    assert run(*flags, "--recursive", "day/n") == 0
    assert set(files_in("out")) == {"b.wav.txt", "m/c.wav.txt", "n/b.wav.txt"}
    assert set(files_in("scores")) == {"b.wav.npz", "m/c.wav.npz"}
    Path("out/b.wav.txt").write_text("mine")
    assert run(*flags, "--recursive", "day/n") == 0
    assert Path("out/b.wav.txt").read_text() == "mine"


@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize("output", ["folder", "text"])
def test_a_stopped_run_keeps_what_is_done(output, jobs, tiny, day, capsys, monkeypatch):
    """The stop comes in b.wav, with two jobs while the error of cut.flac is reported."""
    read_blocks = one_recording.read_blocks

    def read(name, **options):
        for block in read_blocks(name, **options):
            yield block
            if name == "day/n/b.wav" and jobs == 1:
                raise KeyboardInterrupt
        if name == "day/n/b.wav":
            for _ in range(100_000):  # Long enough to be stopped.
                yield np.zeros(160, np.float32)

    def report(problem):
        if "cut.flac" in str(problem) and jobs == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(one_recording, "read_blocks", read)
    monkeypatch.setattr(tag.PROGRAM, "report", report)
    place = ("--output_dir", "out") if output == "folder" else ("--output", "out.txt")
    assert run("-m", tiny, "--jobs", jobs, *place, "--recursive", "day") == 130
    assert not list(day.rglob("*.tmp"))
    if output == "folder":
        assert set(files_in("out")) >= {"a.flac.txt", "a.wav.txt", "cut.flac.partial.txt"}
        assert "n/b.wav.txt" not in files_in("out")
        # With two jobs the other thread may have tagged it in the meantime.
        assert jobs == 2 or "n/m/c.wav.txt" not in files_in("out")
    else:
        text = Path("out.txt").read_text()
        names = [line.split()[1] for line in text.splitlines() if line.startswith("=====")]
        assert names[:3] == ["day/a.flac", "day/a.wav", "day/cut.flac"]
        assert text.count("Topk-1") >= 2 + 7 + 3


def test_what_is_missing_is_told_before_a_model_is_loaded(tiny, day, capsys, monkeypatch):
    monkeypatch.setattr(tag, "_load_tagger", lambda: pytest.fail("loaded"))
    Path("empty").mkdir()
    assert run("-m", tiny, "gone.wav", "*.mp3", "empty") == 1
    starts = [line.split(": ")[1] for line in capsys.readouterr().err.splitlines()]
    assert starts == ["gone.wav", "*.mp3", "empty"]


def test_missing_recordings_count_as_failures(tiny, day, capsys):
    assert run("-m", tiny, "day/n/*", "gone.wav") == 1
    captured = capsys.readouterr()
    assert captured.err.startswith("sat-jax tag: gone.wav: ")
    assert [line for line in captured.out.splitlines() if "=====" in line] == [
        "===== day/n/b.wav =====",
        "===== day/n/m/c.wav =====",
    ]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--output", "a.txt", "--output_dir", "out", "day/a.wav"],
        ["--skip_existing", "day/a.wav"],
        ["--jobs", "0", "day/a.wav"],
        ["--format", "srt", "day"],
        ["--format", "srt", "day/a.*"],
        ["--output_dir", "out", "day/a.wav", "day/n/../a.wav"],
        ["--output", "day/a.wav", "day"],
    ],
)
def test_wrong_flags(arguments, day, capsys):
    before = files_in("day")
    assert run(*arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1
    assert files_in("day") == before


def test_a_result_whose_name_is_too_long_stops_no_other(tiny, day, capsys):
    long = Path("day/n") / f"{'x' * 250}.wav"
    shutil.copy("day/a.wav", long)
    assert run("-m", tiny, "--output_dir", "out", "day/n") == 1
    assert "1 tagged, 1 failed" in capsys.readouterr().err
    assert set(files_in("out")) == {"b.wav.txt"}


class Terminal:
    """A terminal in place of a captured stream."""

    def __init__(self, stream):
        self._stream = stream

    def isatty(self):
        return True

    def __getattr__(self, name):
        return getattr(self._stream, name)


@pytest.mark.parametrize(
    ("flags", "is_shown"),
    [(["--output", "tags.txt"], True), (["--output_dir", "out"], True), ([], False)],
)
def test_a_bar_on_a_terminal_breaks_no_tags(flags, is_shown, tiny, day, capsys, monkeypatch):
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, Terminal(getattr(sys, name)))
    assert run("-m", tiny, *flags, "day/n", "day/a.wav") == 0
    captured = capsys.readouterr()
    assert ("/2 recordings" in captured.err) == is_shown
    assert "\r" not in captured.out
    assert captured.err.splitlines()[-1].strip().startswith("sat-jax tag: 2 tagged; ")
