"""The check against published scores, on stand-ins for models and recordings."""

import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from sat_jax.commands.verify import (
    PROGRAM,
    check,
    published_scores,
    scores_of_tagger,
    verify,
)
from sat_jax.errors import SatError
from sat_jax.labels import audioset_labels
from sat_jax.tagging.tags import ScoredChunk
from sat_jax.weights.catalog import PUBLISHED_FILES
from tests.support.golden_models import GOLDEN, numbers
from tests.support.golden_weights import load_models, state_dict_by_rule

INDEX = {label.name: index for index, label in enumerate(audioset_labels())}


def as_published(model: str, recording: str, chunk_seconds: float) -> Iterator[ScoredChunk]:
    """The scores that were published, to more digits, and nothing else of note."""
    lines = [e for e in published_scores() if e[:3] == (model, recording, chunk_seconds)]
    for number, start in enumerate(sorted({e.start for e in lines})):
        probs = np.full(527, 1e-3, np.float32)
        for line in lines:
            if line.start == start:
                probs[INDEX[line.label]] = line.score + (-1) ** number * 4e-5
        # As the tagger has it: the chunk's first sample over the rate.
        begin = round(start * 16_000) / 16_000
        yield ScoredChunk(start=begin, end=begin + chunk_seconds, probs=probs)


def altered(
    change: Callable[[np.ndarray], None], *, recording: str, number: int
) -> Callable[[str, str, float], Iterator[ScoredChunk]]:
    """Published scores but for one chunk of SAT_T_2s."""

    def scores_for(model: str, name: str, chunk_seconds: float) -> Iterator[ScoredChunk]:
        for i, chunk in enumerate(as_published(model, name, chunk_seconds)):
            if (model, name, i) == ("SAT_T_2s", recording, number):
                change(chunk.probs)
            yield chunk

    return scores_for


def test_the_table_is_the_published_one() -> None:
    scores = published_scores()
    runs = Counter(line[:3] for line in scores)
    jk, mg = "jkLRith2wcc.wav", "mg4kDY_hy6o.wav"
    assert runs == {
        ("SAT_T_2s", jk, 2.0): 15,
        ("SAT_T_2s", mg, 2.0): 15,
        ("audiotransformer_base", mg, 2.0): 15,
        ("audiotransformer_base", mg, 0.16): 18,
        ("SAT_T_1s", jk, 1.0): 12,
        ("SAT_T_1s", mg, 0.16): 18,
    }
    assert {line.model for line in scores} <= set(PUBLISHED_FILES)
    assert {line.label for line in scores} <= set(INDEX)
    for first, *others in zip(scores[0::3], scores[1::3], scores[2::3], strict=True):
        ranked = (first, *others)
        assert [line.rank for line in ranked] == [1, 2, 3]
        assert len({(line.start, line.end) for line in ranked}) == 1
        assert sorted((line.score for line in ranked), reverse=True) == [e.score for e in ranked]
        assert first.end - first.start == pytest.approx(first.chunk_seconds)
    assert sum(line.score for line in scores) == pytest.approx(31.1196, abs=1e-9)


def test_the_published_scores_pass(capsys: pytest.CaptureFixture[str]) -> None:
    assert not verify(as_published, published_scores())
    *lines, summary = capsys.readouterr().out.splitlines()
    assert summary == "93 of 93 published scores are the same here"
    assert len(lines) == 93
    assert lines[1] == (
        "same    SAT_T_2s jkLRith2wcc.wav [0.0s]-[2.0s] Topk-2 Trickle, dribble 0.1661"
    )


@pytest.mark.parametrize("error", [1e-4, -1e-4, 0.5])
def test_one_wrong_digit_is_reported(error: float, capsys: pytest.CaptureFixture[str]) -> None:
    def change(probs: np.ndarray) -> None:
        probs[INDEX["Stream"]] = 0.8668 + error

    wrong = altered(change, recording="jkLRith2wcc.wav", number=1)
    assert verify(wrong, published_scores())
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("DIFFERS")] == [
        "DIFFERS SAT_T_2s jkLRith2wcc.wav [2.0s]-[4.0s] Topk-1 Stream 0.8668, here Stream "
        f"{0.8668 + error:.4f}"
    ]
    assert lines[-1] == "92 of 93 published scores are the same here"


def test_the_wrong_order_is_reported() -> None:
    def change(probs: np.ndarray) -> None:
        a, b = INDEX["Rain"], INDEX["Trickle, dribble"]
        probs[[a, b]] = probs[[b, a]]

    wrong = altered(change, recording="mg4kDY_hy6o.wav", number=0)
    results = list(check(wrong, published_scores()))
    assert len(results) == 93
    failed = [(r.expected.rank, r.expected.label, r.label) for r in results if not r.passed]
    assert failed == [(2, "Trickle, dribble", "Rain"), (3, "Rain", "Trickle, dribble")]


def test_a_recording_that_is_too_short_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    def first_chunk(model: str, recording: str, chunk_seconds: float) -> Iterator[ScoredChunk]:
        yield next(as_published(model, recording, chunk_seconds))

    assert verify(first_chunk, published_scores())
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "18 of 93 published scores are the same here"
    assert lines[3].endswith("Stream 0.8668, here nothing 0.0000")


def test_no_more_is_computed_than_compared() -> None:
    def endless(model: str, recording: str, chunk_seconds: float) -> Iterator[ScoredChunk]:
        yield from as_published(model, recording, chunk_seconds)
        raise AssertionError("asked for a chunk that was not published")

    assert all(result.passed for result in check(endless, published_scores()))


def run(*arguments: object) -> int:
    """The exit code of the program."""
    program = PROGRAM
    with pytest.raises(SystemExit) as stop:
        program.run_parsed(program.parse(["sat-jax verify", *map(str, arguments)]))
    assert isinstance(stop.value.code, int)
    return stop.value.code


@pytest.fixture(name="recordings")
def _recordings(tmp_path: Path) -> Path:
    for name in ("jkLRith2wcc.wav", "mg4kDY_hy6o.wav"):
        shutil.copy(GOLDEN / "clip.wav", tmp_path / name)
    return tmp_path


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--recordings", ""],
        ["--recordings", ".", "more"],
        ["--recordings", ".", "--models", "SAT_S_2s"],
        ["--recordings", ".", "--weights", ""],
    ],
)
def test_wrong_flags(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*arguments) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("sat_jax.commands.verify: ")
    assert output.err.count("\n") == 1


def test_what_cannot_be_had_is_told_in_one_line(
    recordings: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--recordings", recordings, "--weights", recordings / "none") == 1
    output = capsys.readouterr()
    assert output.err.startswith("sat_jax.commands.verify: ")
    assert str(recordings / "none") in output.err
    assert output.err.count("\n") == 1


def test_recordings_are_looked_for_before_weights_are_fetched(
    recordings: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def download(model: str) -> None:
        raise AssertionError(f"{model} was fetched")

    monkeypatch.setattr("sat_jax.commands.verify.load_published", download)
    (recordings / "mg4kDY_hy6o.wav").unlink()
    assert run("--recordings", recordings) == 1
    assert "has no mg4kDY_hy6o.wav" in capsys.readouterr().err


@pytest.fixture(name="weights", scope="module")
def _weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a stand-in for SAT_T_2s, under its published name."""
    golden = load_models()["full_size"]
    tensors = state_dict_by_rule(golden["state_dict_shapes"]["SAT_T_2s"], golden["seed"])
    folder = tmp_path_factory.mktemp("weights")
    state_dict = {name: torch.from_numpy(np.array(x)) for name, x in tensors.items()}
    torch.save(state_dict, folder / PUBLISHED_FILES["SAT_T_2s"])
    return folder


def test_from_files_to_scores(
    weights: Path, recordings: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The way a user goes, on made-up weights and a recording whose answers are known."""
    scores_for = scores_of_tagger(recordings, weights)
    answers = numbers("full_size")["SAT_T_2s"]
    names = [label.name for label in audioset_labels()]
    published = [e for e in published_scores() if e[:2] == ("SAT_T_2s", "jkLRith2wcc.wav")]
    expected = []
    for line in published:
        row = answers[round(line.start / 2.0)]
        index = np.argsort(-row)[line.rank - 1]
        expected.append(line._replace(label=names[index], score=round(float(row[index]), 4)))
    results = list(check(scores_for, expected))
    assert [str(result) for result in results if not result.passed] == []
    assert len(results) == 15

    arguments = ["--recordings", recordings, "--weights", weights, "--models", "SAT_T_2s"]
    assert run(*arguments) == 1
    assert capsys.readouterr().out.endswith(" of 30 published scores are the same here\n")


def test_recordings_that_are_missing(weights: Path, tmp_path: Path) -> None:
    scores = scores_of_tagger(tmp_path, weights)("SAT_T_2s", "jkLRith2wcc.wav", 2.0)
    with pytest.raises(SatError, match=r"jkLRith2wcc\.wav"):
        list(scores)
