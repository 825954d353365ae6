"""The labels of a teacher, against a plain loop over windows that are cut by hand."""

import dataclasses
import shutil

import h5py
import jax
import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile

from data_pipeline.psl.labelling import LabelingOptions, cut_windows, label_clips
from data_pipeline.psl.table import read_psl
from data_pipeline.psl.teacher import SoundTeacher
from data_pipeline.sources.clips import read_clips
from data_pipeline.sources.folder import FolderSource
from data_pipeline.sources.hdf5 import Hdf5Source
from sat_jax.config import ModelConfig
from sat_jax.errors import SatError
from sat_jax.models.transformer import init_variables
from sat_jax.streaming import StreamingModel, make_framing
from sat_jax.streaming.window_scorer import WindowScorer
from sat_jax.tagger import Tagger
from sat_jax.weights.checkpoint import Checkpoint

RATE = 16_000
LABELS = tuple("abcdefghijkl")
# In windows of 1 s every 0.5 s: 1 and a rest, several, exactly 2, a short one, under a patch, ….
SECONDS = (1.3, 3.7, 1.5, 0.62, 0.05, 1.0, 2.51, 1.49)


def make_checkpoint(**changes):
    config = ModelConfig(
        **({"width": 64, "depth": 1, "target_length": 64, "num_classes": 12} | changes)
    )
    variables = jax.jit(init_variables, static_argnums=0)(config, jax.random.key(3))
    # Initial weights score all windows alike; larger ones do not.
    variables["params"] = jax.tree.map(lambda leaf: 3.0 * leaf, variables["params"])
    return Checkpoint(config=config, variables=variables, labels=LABELS, source="a test")


@pytest.fixture(scope="module")
def checkpoint():
    """A window of 1 s is two chunks of it, the second one padded; it returns logits."""
    return make_checkpoint(pooling="logit", pad_last=True)


def make_teacher(checkpoint, batch_size=4):
    streams = StreamingModel(checkpoint.config, make_framing(checkpoint.config))
    return SoundTeacher(WindowScorer(streams, checkpoint.variables, batch_size=batch_size))


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
METADATA = {"weights": "w", "window": 1.0}


def label(source, teacher, output, options=OPTIONS, metadata=METADATA):
    problems = []
    failed = label_clips(
        source, teacher, output, options, metadata=metadata, report=problems.append
    )
    assert failed == len(problems)
    return [str(problem) for problem in problems]


def windows_by_hand(folder, window=1.0, hop=0.5):
    """Yields (file, start, end, samples) of all windows, without the code under test."""
    for index, seconds in enumerate(SECONDS):
        sound = soundfile.read(folder / f"{index}.wav", dtype="float32")[0]
        starts = [hop * i for i in range(100) if hop * i + window <= seconds + 1e-9]
        for start in starts or [0.0]:
            part = sound[round(start * RATE) :][: round(window * RATE)]
            yield f"{index}.wav", start, start + len(part) / RATE, part


def read_lines(path):
    """The rows of a file or folder of labels."""
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


def test_labels_equal_a_plain_loop(checkpoint, teacher, source, folder, tmp_path):
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
    # All windows differ; else this test could not fail.
    assert len({line["prob"] for line in lines}) == len(lines)


def test_hdf5_files_give_the_same_labels(teacher, source, folder, tmp_path):
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
    """A source that is interrupted at its n-th clip, and records which were read."""

    def __init__(self, source, at=None):
        self.source, self.at, self.clips_read = source, at, []
        self.clips = source.clips

    def read(self, index, **options):
        if index == self.at:
            raise KeyboardInterrupt
        self.clips_read.append(index)
        return self.source.read(index, **options)


def test_a_stopped_run_is_resumed(teacher, source, tmp_path):
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
    assert sorted(rest.clips_read) == [3, 4, 5, 6, 7]
    assert content(read_lines(tmp_path / "parts")) == content(read_lines(tmp_path / "whole"))
    again = Interrupted(source)
    label(again, teacher, tmp_path / "parts")
    assert again.clips_read == []

    # A lost part is made again.
    next((tmp_path / "parts").glob("*-000000.parquet")).unlink()
    label(source, teacher, tmp_path / "parts")
    assert content(read_lines(tmp_path / "parts")) == content(read_lines(tmp_path / "whole"))


def test_an_interrupted_run_keeps_the_older_file(teacher, source, tmp_path):
    path = tmp_path / "psl.parquet"
    path.write_bytes(b"older")
    with pytest.raises(KeyboardInterrupt):
        label(Interrupted(source, at=5), teacher, path)
    assert path.read_bytes() == b"older" and list(tmp_path.iterdir()) == [path]


def test_a_file_in_place_of_the_folder_is_kept(teacher, source, tmp_path):
    (tmp_path / "a.wav").write_text("mine")
    with pytest.raises(SatError, match=r"a\.wav"):
        label(source, teacher, tmp_path / "a.wav")
    assert (tmp_path / "a.wav").read_text() == "mine"


def test_labels_with_other_metadata_are_not_mixed(teacher, source, tmp_path):
    label(source, teacher, tmp_path / "parts")
    before = content(read_lines(tmp_path / "parts"))
    for changed in ({"window": 2.0}, {"weights": "x"}):
        [(key, value)] = changed.items()
        with pytest.raises(SatError, match=rf"\.parquet.*{key}={METADATA[key]}.*{value}"):
            label(source, teacher, tmp_path / "parts", metadata=METADATA | changed)
    assert content(read_lines(tmp_path / "parts")) == before


def test_unreadable_clips_are_reported_and_tried_again(teacher, folder, tmp_path):
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
    with pytest.raises(SatError, match="8 clips"):
        label(source, teacher, tmp_path / "psl.parquet")
    assert not (tmp_path / "psl.parquet").exists()


def test_non_finite_scores_end_the_run(checkpoint, source, tmp_path):
    broken = jax.tree.map(lambda leaf: np.full_like(leaf, np.nan), checkpoint.variables)
    teacher = make_teacher(dataclasses.replace(checkpoint, variables=broken))
    with pytest.raises(SatError, match="not finite"):
        label(source, teacher, tmp_path / "p.parquet")
    assert not list(tmp_path.iterdir())
