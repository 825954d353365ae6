"""The comparison with published scores, on made-up weights and recordings."""

import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from sat_jax.errors import SatError
from sat_jax.evaluation.published_scores import compare, published_scores, tagger_scores
from sat_jax.labels import audioset_labels
from sat_jax.streaming.scored_chunk import ScoredChunk
from sat_jax.weights.catalog import PUBLISHED_FILES
from tests.support.golden_models import GOLDEN, numbers
from tests.support.published_weights import as_published, save_published_weights

INDEX = {label.name: index for index, label in enumerate(audioset_labels())}


def altered(
    change: Callable[[np.ndarray], None], *, recording: str, number: int
) -> Callable[[str, str, float], Iterator[ScoredChunk]]:
    """Published scores, except for one chunk of SAT_T_2s."""

    def score_recording(model: str, name: str, seconds: float) -> Iterator[ScoredChunk]:
        for i, chunk in enumerate(as_published(model, name, seconds)):
            if (model, name, i) == ("SAT_T_2s", recording, number):
                change(chunk.probs)
            yield chunk

    return score_recording


def test_the_table_is_the_published_one() -> None:
    scores = published_scores()
    jk, mg = "jkLRith2wcc.wav", "mg4kDY_hy6o.wav"
    assert Counter(line[:3] for line in scores) == {
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


def test_the_published_scores_are_the_same() -> None:
    results = list(compare(as_published, published_scores()))
    assert len(results) == 93 and all(result.same for result in results)
    assert str(results[1]) == (
        "same    SAT_T_2s jkLRith2wcc.wav [0.0s]-[2.0s] Topk-2 Trickle, dribble 0.1661"
    )


@pytest.mark.parametrize("error", [1e-4, -1e-4, 0.5])
def test_one_wrong_digit_differs(error: float) -> None:
    def change(probs: np.ndarray) -> None:
        probs[INDEX["Stream"]] = 0.8668 + error

    wrong = altered(change, recording="jkLRith2wcc.wav", number=1)
    results = list(compare(wrong, published_scores()))
    assert [str(result) for result in results if not result.same] == [
        "DIFFERS SAT_T_2s jkLRith2wcc.wav [2.0s]-[4.0s] Topk-1 Stream 0.8668, here Stream "
        f"{0.8668 + error:.4f}"
    ]


def test_the_wrong_order_differs() -> None:
    def change(probs: np.ndarray) -> None:
        a, b = INDEX["Rain"], INDEX["Trickle, dribble"]
        probs[[a, b]] = probs[[b, a]]

    wrong = altered(change, recording="mg4kDY_hy6o.wav", number=0)
    results = list(compare(wrong, published_scores()))
    different = [(r.published.rank, r.published.label, r.label) for r in results if not r.same]
    assert different == [(2, "Trickle, dribble", "Rain"), (3, "Rain", "Trickle, dribble")]


def test_a_recording_that_is_too_short_differs() -> None:
    def first_chunk(model: str, recording: str, seconds: float) -> Iterator[ScoredChunk]:
        yield next(as_published(model, recording, seconds))

    results = list(compare(first_chunk, published_scores()))
    assert sum(result.same for result in results) == 18
    assert (results[3].label, results[3].score) == ("", 0.0)


def test_chunks_that_are_not_published_are_not_computed() -> None:
    def endless(model: str, recording: str, seconds: float) -> Iterator[ScoredChunk]:
        yield from as_published(model, recording, seconds)
        raise AssertionError("asked for a chunk that is not published")

    assert all(result.same for result in compare(endless, published_scores()))


def test_from_files_to_scores(tmp_path: Path) -> None:
    """Made-up weights of a real size, on a recording whose scores are known."""
    save_published_weights(tmp_path, "SAT_T_2s")
    shutil.copy(GOLDEN / "clip.wav", tmp_path / "jkLRith2wcc.wav")
    known = numbers("full_size")["SAT_T_2s"]
    names = [label.name for label in audioset_labels()]
    expected = []
    for line in published_scores():
        if line[:2] == ("SAT_T_2s", "jkLRith2wcc.wav"):
            row = known[round(line.start / 2.0)]
            index = np.argsort(-row)[line.rank - 1]
            score = round(float(row[index]), 4)
            expected.append(line._replace(label=names[index], score=score))
    results = list(compare(tagger_scores(tmp_path, tmp_path), expected))
    assert [str(result) for result in results if not result.same] == []
    assert len(results) == 15
    with pytest.raises(SatError, match=r"mg4kDY_hy6o\.wav"):
        list(tagger_scores(tmp_path, tmp_path)("SAT_T_2s", "mg4kDY_hy6o.wav", 2.0))
