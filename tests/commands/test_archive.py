"""The command archive: its tables against a Tagger, resuming, and bad input."""

import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

from sat_jax.tagger import Tagger
from sat_jax.tags import TagSelection
from sat_jax.weights.checkpoint import load_checkpoint, save_checkpoint
from tests.support.labelled_clips import LABELS, RATE, sounds, tiny_checkpoint
from tests.support.programs import run_command

pytest.importorskip("apache_beam")
parquet = pytest.importorskip("pyarrow.parquet")


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """Recordings at two depths, in a tar file, one cut off and one that is no audio."""
    folder = tmp_path_factory.mktemp("archive")
    (folder / "deep/er").mkdir(parents=True)
    for index, name in ((0, "a.wav"), (3, "b.flac"), (6, "deep/er/c.wav")):
        soundfile.write(folder / name, sounds()[index], RATE)
    soundfile.write(folder / "cut.wav", sounds()[8], RATE)
    whole = (folder / "cut.wav").read_bytes()
    (folder / "cut.wav").write_bytes(whole[: len(whole) // 2])
    (folder / "noise.wav").write_bytes(b"no sound")
    with tarfile.open(folder / "deep/shard.tar", "w") as tar:
        tar.add(folder / "b.flac", "x/b.flac")
        tar.add(folder / "b.flac", "x/b.json")
    save_checkpoint(folder / "model", tiny_checkpoint())
    return folder


@pytest.fixture(scope="module")
def tables(archive):
    """The tables of the archive."""
    assert tag(archive, "--scores", "--embeddings", "-k", "2", "--threshold=0.3") == 1
    return archive / "out"


def tag(archive, *flags):
    patterns = [archive / "**.wav", archive / "**.flac", archive / "**.tar"]
    flags = ["-m", archive / "model", "-c", "0.5", "--part_files=2", *flags]
    return run_command("archive", *patterns, f"--output={archive / 'out'}", *flags)


def rows(folder, table):
    return parquet.read_table(folder / table).to_pylist()


def test_tables_hold_the_answers_of_a_tagger(archive, tables):
    tagger = Tagger(load_checkpoint(archive / "model"), chunk_seconds=0.5, embeddings=True)
    selection = TagSelection(labels=LABELS, k=2, threshold=0.3)
    names = {name: archive / name for name in ("a.wav", "b.flac", "deep/er/c.wav")}
    names["deep/shard.tar/x/b.flac"] = archive / "b.flac"
    found = {
        table: {str(archive / n): [] for n in [*names, "cut.wav"]}
        for table in ("tags", "scores", "embeddings")
    }
    for table, by_name in found.items():
        for row in rows(tables, table):
            by_name[row["recording"]].append(row)
    for name, path in names.items():
        chunks = list(tagger.tag_file(path))
        of_tags, of_scores = (found[table][str(archive / name)] for table in ("tags", "scores"))
        assert [(row["start"], row["end"]) for row in of_scores] == [
            (chunk.start, chunk.end) for chunk in chunks
        ]
        np.testing.assert_array_equal(
            np.array([row["scores"] for row in of_scores], np.float32),
            np.stack([chunk.probs for chunk in chunks]),
        )
        np.testing.assert_array_equal(
            [row["embeddings"] for row in found["embeddings"][str(archive / name)]],
            [chunk.embedding for chunk in chunks],
        )
        assert [(row["start"], row["label"], np.float32(row["prob"])) for row in of_tags] == [
            (chunk.start, chosen.label, np.float32(chosen.prob))
            for chunk in chunks
            for chosen in selection.tags(chunk.probs)
        ]
    assert {row["label"]: row["id"] for row in rows(tables, "tags")}["Dog"] == "/m/0bt9lr"
    # A recording that is cut off is tagged up to there.
    assert [row["end"] for row in found["scores"][str(archive / "cut.wav")]][-1] < 1.0
    failed = {Path(row["recording"]).name: row["error"] for row in rows(tables, "failures")}
    assert failed.keys() == {"cut.wav", "noise.wav"} and "truncated" in failed["cut.wav"]
    counts = json.loads((tables / "counts.json").read_text())
    assert (counts["recordings"], counts["failed"]) == (6, 2)


def test_a_rerun_does_what_is_missing_and_what_came_since(archive, tables, tmp_path, capsys):
    copy = shutil.copytree(tables, tmp_path / "copy")
    parts = sorted((tables / "failures").iterdir())
    marks = {path: path.stat().st_mtime_ns for path in (tables / "tags").iterdir()}
    parts[1].unlink()  # As if that part had been stopped.
    soundfile.write(archive / "a_new.wav", sounds()[1], RATE)
    assert tag(archive, "--scores", "--embeddings", "-k", "2", "--threshold=0.3") == 1
    assert "7 recordings" in capsys.readouterr().out
    redone = {
        path.name
        for path in (tables / "tags").iterdir()
        if marks.get(path) != path.stat().st_mtime_ns
    }
    assert redone == {parts[1].name, f"part-{len(parts):06d}.parquet"}
    for table in ("tags", "scores", "embeddings", "failures"):
        old, new = rows(copy, table), rows(tables, table)
        assert [row for row in new if not row["recording"].endswith("a_new.wav")] == old


def test_other_settings_are_refused(archive, tables, capsys):
    assert tag(archive, "--scores", "--embeddings", "-k", "3", "--threshold=0.3") == 1
    [line] = capsys.readouterr().err.splitlines()
    assert "plan.parquet" in line and "another k" in line


@pytest.mark.parametrize(
    ("flags", "code", "named"),
    [
        (["none/*.wav", "--output=out"], 1, "none/*.wav"),
        (["*", "--output=gs://bucket/out"], 1, "gs://bucket/out"),
        (["*", "--output=file/out"], 1, "file/out"),
        (["*", "--output=out", "--beam_options=region=x"], 1, "region=x"),
        (["*", "--output=out", "--beam_options=runner=Flank"], 1, "runner: Flank: correct"),
        (["*", "--output=out", "--threshold=2"], 2, "--threshold=2"),
        (["*"], 2, "--output"),
        (["--output=out"], 2, "pattern"),
    ],
)
def test_bad_input_is_one_line(tmp_path, monkeypatch, capsys, flags, code, named):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    assert run_command("archive", *flags) == code
    [line] = capsys.readouterr().err.splitlines()
    assert named in line


def test_a_damaged_tar_file_is_a_failure(archive, tmp_path):
    whole = (archive / "deep/shard.tar").read_bytes()
    (tmp_path / "cut.tar").write_bytes(whole[:2000])
    flags = ["-m", archive / "model", f"--output={tmp_path / 'out'}"]
    assert run_command("archive", tmp_path / "cut.tar", *flags) == 1
    [row] = rows(tmp_path / "out", "failures")
    assert row["recording"].startswith(str(tmp_path / "cut.tar"))
