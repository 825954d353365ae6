"""The command that compares with the published scores."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sat_jax.streaming.scored_chunk import ScoredChunk
from tests.support.golden_models import GOLDEN
from tests.support.programs import run_command
from tests.support.published_weights import as_published

MODULE = "sat_jax.commands.verify"


@pytest.fixture(name="recordings")
def _recordings(tmp_path: Path) -> Path:
    for name in ("jkLRith2wcc.wav", "mg4kDY_hy6o.wav"):
        shutil.copy(GOLDEN / "clip.wav", tmp_path / name)
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ([], "--recordings"),
        (["--recordings", ""], "--recordings"),
        (["--recordings", ".", "more"], "more"),
        (["--recordings", ".", "--models", "SAT_S_2s"], "SAT_S_2s"),
        (["--recordings", ".", "--weights", ""], "--weights"),
    ],
)
def test_wrong_flags(arguments: list[str], named: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command("verify", *arguments) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert named in output.err and output.err.count("\n") == 1


def test_help_names_the_models(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command("verify", "--help") == 0
    text = capsys.readouterr().out
    assert "SAT_T_1s|SAT_T_2s|" in text and ".;" not in text and "default: '" not in text


def test_missing_weights_are_named(recordings: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--recordings", recordings, "--weights", recordings / "none"]
    assert run_command("verify", *arguments) == 1
    output = capsys.readouterr()
    assert str(recordings / "none") in output.err and output.err.count("\n") == 1


def test_a_missing_recording_is_named_before_weights_are_downloaded(
    recordings: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(f"{MODULE}.tagger_scores", lambda *_: pytest.fail("too early"))
    (recordings / "mg4kDY_hy6o.wav").unlink()
    assert run_command("verify", "--recordings", recordings) == 1
    assert "mg4kDY_hy6o.wav" in capsys.readouterr().err


def test_all_scores_the_same(
    recordings: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(f"{MODULE}.tagger_scores", lambda *_: as_published)
    assert run_command("verify", "--recordings", recordings) == 0
    *lines, summary = capsys.readouterr().out.splitlines()
    assert len(lines) == 93 and all(line.startswith("same ") for line in lines)
    assert summary.startswith("93 of 93 ")


def test_one_chunk_only(
    recordings: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def first_chunk(*recording: Any) -> Iterator[ScoredChunk]:
        yield next(as_published(*recording))

    monkeypatch.setattr(f"{MODULE}.tagger_scores", lambda *_: first_chunk)
    assert run_command("verify", "--recordings", recordings, "--models", "SAT_T_2s") == 1
    assert capsys.readouterr().out.splitlines()[-1].startswith("6 of 30 ")
