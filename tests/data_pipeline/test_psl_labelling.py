"""Labels of a teacher against a plain loop over windows that are cut by hand."""

import functools
import os
import shutil
import subprocess
import sys
import types
from pathlib import Path

import h5py
import jax
import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
from absl import flags

from data_pipeline.psl.files import read_about, read_names
from data_pipeline.psl.label_windows import LabelingOptions, cut_windows, label_clips
from data_pipeline.psl.table import read_psl
from data_pipeline.sources.clips import read_clips
from data_pipeline.sources.flags import define_source_flags, open_source, source_flags
from data_pipeline.sources.folder import FolderSource
from data_pipeline.sources.hdf5 import Hdf5Source
from sat_jax.config import ModelConfig
from sat_jax.errors import SatError
from sat_jax.labels import class_fingerprint
from sat_jax.models.transformer import init_variables
from sat_jax.streaming.window_scorer import WindowScorer
from sat_jax.tagger import Tagger
from sat_jax.weights.checkpoint import Checkpoint, save_checkpoint

ROOT = Path(__file__).parents[2]
RATE = 16_000
LABELS = tuple("abcdefghijkl")
# One window and a bit, several, exactly two, one as it is, less than a patch, exactly one, ….
SECONDS = (1.3, 3.7, 1.5, 0.62, 0.05, 1.0, 2.51, 1.49)


def make_checkpoint(**changes):
    config = ModelConfig(
        **({"width": 64, "depth": 1, "target_length": 64, "num_classes": 12} | changes)
    )
    variables = jax.jit(init_variables, static_argnums=0)(config, jax.random.key(3))
    # Fresh weights hardly tell windows apart; larger ones do.
    variables["params"] = jax.tree.map(lambda leaf: 3.0 * leaf, variables["params"])
    return Checkpoint(config=config, variables=variables, labels=LABELS, source="a test")


@pytest.fixture(scope="module")
def checkpoint():
    """Windows of 1 s are two pieces to it, the second one padded; it answers with logits."""
    return make_checkpoint(pooling="logit", pad_last=True)


def make_teacher(checkpoint, batch_size=4):
    return WindowScorer(checkpoint.config, checkpoint.variables, batch_size=batch_size)


@pytest.fixture(scope="module")
def teacher(checkpoint):
    return make_teacher(checkpoint)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Recordings 0.wav, …, their table clips.csv, and the same as clips.tsv and clips.h5."""
    folder, rng = tmp_path_factory.mktemp("clips"), np.random.default_rng(0)
    with h5py.File(folder / "clips.h5", "w") as file:
        for index, seconds in enumerate(SECONDS):
            time = np.arange(round(seconds * RATE)) / RATE
            sound = 0.3 * np.sin(2 * np.pi * rng.uniform(100, 3000) * time * (1 + time))
            sound += rng.uniform(0, 0.3) * rng.standard_normal(len(time))
            samples = (sound.clip(-1, 0.999) * 32_768).astype(np.int16)
            soundfile.write(folder / f"{index}.wav", samples, RATE)
            file[f"{index}.wav"] = samples
    rows = [f"{index}.wav" for index in range(len(SECONDS))]
    (folder / "clips.csv").write_text("\n".join(["file,labels", *(f"{row}," for row in rows)]))
    lines = ["filename\tlabels\tduration\thdf5path", *(f"{row}\t\t1\tclips.h5" for row in rows)]
    (folder / "clips.tsv").write_text("\n".join(lines))
    return folder


@pytest.fixture
def source(folder):
    return FolderSource(read_clips(folder / "clips.csv", LABELS))


OPTIONS = LabelingOptions(window_seconds=1.0, hop_seconds=0.5, top_k=3, clips_per_part=3)
ABOUT = {"weights": "w", "window": 1.0}


def label(source, teacher, output, options=OPTIONS, about=ABOUT):
    problems = []
    failed = label_clips(source, teacher, output, options, about=about, report=problems.append)
    assert failed == len(problems)
    return [str(problem) for problem in problems]


def windows_by_hand(folder, window=1.0, hop=0.5):
    """(file, start, end, samples) of all windows, written down without the code under test."""
    for index, seconds in enumerate(SECONDS):
        sound = soundfile.read(folder / f"{index}.wav", dtype="float32")[0]
        starts = [hop * i for i in range(100) if hop * i + window <= seconds + 1e-9]
        for start in starts or [0.0]:
            part = sound[round(start * RATE) :][: round(window * RATE)]
            yield f"{index}.wav", start, start + len(part) / RATE, part


def read_lines(path):
    """The lines of a file or folder of labels as they stand there."""
    files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    return [line for file in files for line in pq.read_table(file).to_pylist()]


def content(lines):
    keys = ("filename", "start", "end", "prob", "idxs")
    return sorted(tuple(line[key] for key in keys) for line in lines)


def test_windows_of_the_published_files():
    seconds = [
        (first / RATE, last / RATE) for first, last in cut_windows(10 * RATE, 4 * RATE, 2 * RATE)
    ]
    assert seconds == [(0, 4), (2, 6), (4, 8), (6, 10)]
    assert cut_windows(10 * RATE - 1, 4 * RATE, 2 * RATE)[-1] == (4 * RATE, 8 * RATE)
    assert cut_windows(4 * RATE, 4 * RATE, 2 * RATE) == [(0, 4 * RATE)]
    assert cut_windows(100, 4 * RATE, 2 * RATE) == [(0, 100)]


def test_labels_are_those_of_a_plain_loop(checkpoint, teacher, source, folder, tmp_path):
    assert label(source, teacher, tmp_path / "psl.parquet") == []
    lines = read_lines(tmp_path / "psl.parquet")
    tagger = Tagger(checkpoint)
    expected = list(windows_by_hand(folder))
    assert len(expected) == 17 and len({len(part) for *_, part in expected}) == 3
    for line, (name, start, end, part) in zip(lines, expected, strict=True):
        assert (line["filename"], line["start"]) == (name, start)
        assert line["end"] == pytest.approx(end, abs=1e-9)
        [answer] = tagger.clip([part])
        strongest = np.argsort(-answer.probs)[:3]
        assert [int(index) for index in line["idxs"].split(";")] == strongest.tolist()
        probs = [float(prob) for prob in line["prob"].split(";")]
        np.testing.assert_allclose(probs, answer.probs[strongest], atol=2e-6)
    # The labels tell windows apart: else this test could not fail.
    assert len({line["prob"] for line in lines}) == len(lines)


def test_a_source_of_hdf5_files_gives_the_same(teacher, source, folder, tmp_path):
    label(source, teacher, tmp_path / "a.parquet")
    label(Hdf5Source(folder / "clips.tsv", num_classes=12), teacher, tmp_path / "b.parquet")
    assert content(read_lines(tmp_path / "a.parquet")) == content(
        read_lines(tmp_path / "b.parquet")
    )


def test_shards_and_parts_make_up_the_whole(teacher, source, tmp_path):
    label(source, teacher, tmp_path / "whole.parquet")
    whole = content(read_lines(tmp_path / "whole.parquet"))
    for shard in range(3):
        options = LabelingOptions(
            window_seconds=1.0, hop_seconds=0.5, top_k=3, clips_per_part=2, shard=(shard, 3)
        )
        label(source, teacher, tmp_path / "parts", options)
        names = {line["filename"] for line in read_lines(tmp_path / "parts")}
        assert names == {f"{i}.wav" for i in range(len(SECONDS)) if i % 3 <= shard}
    assert [path.name for path in sorted((tmp_path / "parts").iterdir())] == [
        f"part-{shard}-of-3-{number:06d}.parquet"
        for shard, number in [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0)]
    ]
    assert [line[:3] for line in content(read_lines(tmp_path / "parts"))] == [
        line[:3] for line in whole
    ]
    one, other = (
        read_psl([tmp_path / name], source.clips.ids) for name in ("whole.parquet", "parts")
    )
    rows = np.arange(len(one.start))
    np.testing.assert_allclose(one.targets(rows, 12), other.targets(rows, 12), atol=2e-6)


class Interrupted:
    """A source that stops the program at its n-th clip, and remembers which were read."""

    def __init__(self, source, at=None):
        self.source, self.at, self.heard = source, at, []
        self.clips = source.clips

    def read(self, index, **options):
        if index == self.at:
            raise KeyboardInterrupt
        self.heard.append(index)
        return self.source.read(index, **options)


def test_a_run_that_was_stopped_goes_on(teacher, source, tmp_path):
    label(source, teacher, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        label(Interrupted(source, at=4), teacher, tmp_path / "parts")
    assert {line["filename"] for line in read_lines(tmp_path / "parts")} == {
        "0.wav",
        "1.wav",
        "2.wav",
    }
    assert len(list((tmp_path / "parts").iterdir())) == 1  # Nothing half-written.

    rest = Interrupted(source)
    label(rest, teacher, tmp_path / "parts")
    assert sorted(rest.heard) == [3, 4, 5, 6, 7]
    assert content(read_lines(tmp_path / "parts")) == content(read_lines(tmp_path / "whole"))
    again = Interrupted(source)
    label(again, teacher, tmp_path / "parts")
    assert again.heard == []

    # A lost part is made again, under its own name or not.
    next((tmp_path / "parts").glob("*-000000.parquet")).unlink()
    label(source, teacher, tmp_path / "parts")
    assert content(read_lines(tmp_path / "parts")) == content(read_lines(tmp_path / "whole"))


def test_an_interrupted_file_leaves_the_older_one(teacher, source, tmp_path):
    path = tmp_path / "psl.parquet"
    path.write_bytes(b"older")
    with pytest.raises(KeyboardInterrupt):
        label(Interrupted(source, at=5), teacher, path)
    assert path.read_bytes() == b"older" and list(tmp_path.iterdir()) == [path]


def test_a_file_is_no_folder_of_parts(teacher, source, tmp_path):
    (tmp_path / "a.wav").write_text("mine")
    with pytest.raises(SatError, match=r"a\.wav is a file, and a name without \.parquet is that"):
        label(source, teacher, tmp_path / "a.wav")
    assert (tmp_path / "a.wav").read_text() == "mine"


def test_labels_made_otherwise_are_not_mixed(teacher, source, tmp_path):
    label(source, teacher, tmp_path / "parts")
    before = content(read_lines(tmp_path / "parts"))
    for about in ({"weights": "w", "window": 2.0}, {"weights": "x", "window": 1.0}):
        with pytest.raises(SatError, match=r"\.parquet was made with .* choose another folder"):
            label(source, teacher, tmp_path / "parts", about=about)
    assert content(read_lines(tmp_path / "parts")) == before


def test_clips_that_cannot_be_read_are_told_and_tried_again(teacher, folder, tmp_path):
    for path in folder.glob("*.wav"):
        shutil.copy(path, tmp_path)
    (tmp_path / "3.wav").write_bytes(b"")
    (tmp_path / "6.wav").unlink()
    source = FolderSource(read_clips(folder / "clips.csv", LABELS, folder=tmp_path))
    problems = label(source, teacher, tmp_path / "parts")
    assert ["3.wav" in problems[0], "6.wav" in problems[1], len(problems)] == [True, True, 2]
    names = {line["filename"] for line in read_lines(tmp_path / "parts")}
    assert names == {f"{i}.wav" for i in (0, 1, 2, 4, 5, 7)}
    shutil.copy(folder / "3.wav", tmp_path)
    [problem] = label(source, teacher, tmp_path / "parts")
    assert "6.wav" in problem

    for path in tmp_path.glob("*.wav"):
        path.write_bytes(b"")
    with pytest.raises(SatError, match="none of the 8 clips could be read"):
        label(source, teacher, tmp_path / "psl.parquet")
    assert not (tmp_path / "psl.parquet").exists()


def test_damaged_weights_end_the_run(checkpoint, source, tmp_path):
    broken = jax.tree.map(lambda leaf: np.full_like(leaf, np.nan), checkpoint.variables)
    teacher = WindowScorer(checkpoint.config, broken, batch_size=4)
    with pytest.raises(SatError, match="not finite"):
        label(source, teacher, tmp_path / "p.parquet")
    assert not list(tmp_path.iterdir())


# --- sources by flags


def test_sources_by_name(folder):
    for options in ({"clips": str(folder / "clips.csv")}, {"hdf5_tsv": str(folder / "clips.tsv")}):
        source = open_source(LABELS, **options)
        assert list(source.clips.ids) == [f"{i}.wav" for i in range(len(SECONDS))]
        moved = open_source(LABELS, **options, folder=str(folder))
        assert moved.clips.fingerprint() == source.clips.fingerprint()


def test_missing_files_may_be_left_out(folder, tmp_path):
    shutil.copy(folder / "2.wav", tmp_path)
    options = {"clips": str(folder / "clips.csv"), "folder": str(tmp_path)}
    assert len(open_source(LABELS, **options).clips.ids) == len(SECONDS)
    assert open_source(LABELS, **options, leave_out_missing=True).clips.ids == ["2.wav"]


@pytest.mark.parametrize(
    ("text", "name", "split"),
    [
        ("audioset:train", "audioset", "train"),
        ("audioset/full:1.0.0:train[:10%]", "audioset/full:1.0.0", "train[:10%]"),
        ("audioset:1.*.*:test", "audioset:1.*.*", "test"),
        ("audioset:train[5:10]+test", "audioset", "train[5:10]+test"),
    ],
)
def test_names_of_tensorflow_data_sets(monkeypatch, text, name, split):
    class Source:
        def __init__(self, *arguments, **features):
            self.arguments, self.features, self.classes = arguments, features, None

        def use_classes(self, names):
            self.classes = names

    module = types.SimpleNamespace(TfdsSource=Source)
    monkeypatch.setitem(sys.modules, "data_pipeline.sources.tfds.source", module)
    opened = open_source(LABELS, tfds=text, data_dir="dir")
    assert opened.arguments == (name, split, "dir")
    assert opened.features == {"audio": None, "labels": None}
    assert opened.classes == LABELS
    assert open_source((), tfds=text).classes is None
    named = open_source((), tfds=text, columns="sound,what")
    assert named.features == {"audio": "sound", "labels": "what"}


def test_labels_that_do_not_matter_are_passed_over(folder, tmp_path):
    (tmp_path / "a.csv").write_text("file\n0.wav\n1.wav\n")
    (tmp_path / "b.csv").write_text("file,labels\n0.wav,No such class\n1.wav,9999\n")
    (tmp_path / "c.tsv").write_text(
        "filename\tlabels\thdf5path\n0.wav\tNo such class\tclips.h5\n1.wav\t9999\tclips.h5\n"
    )
    for options in ({"clips": "a.csv"}, {"clips": "b.csv"}, {"hdf5_tsv": "c.tsv"}):
        paths = {name: str(tmp_path / file) for name, file in options.items()}
        clips = open_source((), **paths, folder=str(folder)).clips
        assert list(clips.ids) == ["0.wav", "1.wav"] and not len(clips.label_indices)


def test_flags_of_two_sources(monkeypatch):
    values = flags.FlagValues()
    monkeypatch.setattr(flags, "FLAGS", values)
    define = functools.partial(flags.DEFINE_string, flag_values=values)
    monkeypatch.setattr(flags, "DEFINE_string", define)
    monkeypatch.setattr(sys, "argv", ["program"])
    define_source_flags(flags.FLAGS)
    define_source_flags(flags.FLAGS, "valid_")
    values(["program", "--clips=a.csv", "--folder=b"])
    assert source_flags(flags.FLAGS, "valid_") is None
    names = {flag.name for flag in values.get_key_flags_for_module("program")}
    assert {"hdf5_tsv", "valid_data_dir"} <= names  # Else --help would not tell of them.
    assert {name: value for name, value in source_flags(flags.FLAGS).items() if value} == {
        "clips": "a.csv",
        "folder": "b",
    }
    values(["program", "--valid_tfds=a:b", "--valid_data_dir=d", "--where=x=1"])
    assert source_flags(flags.FLAGS, "valid_")["tfds"] == "a:b"
    assert source_flags(flags.FLAGS)["where"] == "x=1"
    values(["program", "--valid_hdf5_tsv=a.tsv"])
    with pytest.raises(flags.Error, match=r"--valid_hdf5_tsv and --valid_tfds and --valid_data"):
        source_flags(flags.FLAGS, "valid_")


def test_a_library_that_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    monkeypatch.delitem(sys.modules, "data_pipeline.sources.hdf5")
    with pytest.raises(SatError, match=r"needs h5py .*pip install 'sat-jax\[train\]'"):
        open_source(LABELS, hdf5_tsv="clips.tsv")


# --- the program


def program(*arguments, cwd):
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "data_pipeline.psl", *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_program(checkpoint, teacher, source, folder, tmp_path):
    save_checkpoint(tmp_path / "model", checkpoint)
    table = tmp_path / "clips.csv"
    table.write_text((folder / "clips.csv").read_text() + "\nlost.wav,No class of the teacher\n")
    flags = ["-m", "model", "--window", "1", "--hop=0.5", "--top_k", "3", "--shard", "0/2"]
    where = ["--clips", table, "--folder", folder, "--output", "psl/out"]
    done = program(*flags, *where, cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    assert done.stderr.splitlines() == [
        f"data_pipeline.psl: {folder / 'lost.wav'}: cannot be opened: No such file or directory",
        "data_pipeline.psl: 1 clips could not be read and have no labels",
    ]
    (part,) = (tmp_path / "psl/out").iterdir()
    assert read_about(part)["classes"] == class_fingerprint(checkpoint.labels)
    count = len(read_names(part))
    assert done.stdout == f"psl/out: pseudo strong labels of {count} clips\n"
    options = LabelingOptions(window_seconds=1.0, hop_seconds=0.5, top_k=3, shard=(0, 2))
    label(source, teacher, tmp_path / "own.parquet", options)
    ids = source.clips.ids
    one, other = read_psl([tmp_path / "psl/out"], ids), read_psl([tmp_path / "own.parquet"], ids)
    np.testing.assert_array_equal(one.window_starts, other.window_starts)
    np.testing.assert_allclose(one.probs, other.probs, atol=2e-6)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "--model is needed"),
        (["-m", "x"], 2, "--output is needed"),
        (["-m", "x", "--output", "o"], 2, "give one of --clips, --hdf5_tsv and --tfds"),
        (
            ["-m", "x", "--output", "o", "--clips=a", "--tfds=b:c"],
            2,
            "--clips and --tfds: give one of --clips, --hdf5_tsv",
        ),
        (["-m", "x", "--output", "o", "--folder=a"], 2, "--folder: give one of --clips, --hdf5"),
        (["-m", "x", "--output", "o", "--tfds=b"], 2, "--tfds=b is not NAME:SPLIT"),
        (["-m", "x", "--output", "o", "--clips=a", "--shard=2/2"], 2, "--shard=2/2 is not I/N"),
        (["-m", "x", "--output", "o", "--clips=a", "--top_k=0"], 2, "top_k"),
        (["-m", "x", "--output", "o", "--clips=a", "a.wav"], 2, "a.wav is no flag"),
        (["-m", "x", "--output", "o", "--clips=a"], 1, "x is no file"),
    ],
)
def test_program_refuses_with_one_line(tmp_path, arguments, code, message):
    done = program(*arguments, cwd=tmp_path)
    [line] = done.stderr.splitlines()
    assert line.startswith("data_pipeline.psl: ")
    assert message in line
    assert (done.returncode, done.stdout) == (code, "")
    assert not list(tmp_path.iterdir())
