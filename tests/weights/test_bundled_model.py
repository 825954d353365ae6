"""The bundled model, on sounds that it was not trained on."""

import re
from pathlib import Path

import numpy as np
import pytest
import soundfile

from sat_jax import Tagger
from sat_jax.errors import SatError
from sat_jax.find_model import find_checkpoint
from sat_jax.weights.catalog import BUNDLED, DEFAULT_MODEL
from sat_jax.weights.thresholds_file import load_thresholds

ROOT = Path(__file__).parents[2]
HELD_OUT = Path(__file__).parents[1] / "held_out"


@pytest.fixture(scope="module")
def tagger():
    return Tagger.load(DEFAULT_MODEL)


@pytest.fixture(scope="module")
def labels():
    return (HELD_OUT / "labels.txt").read_text(encoding="utf-8").splitlines()


@pytest.fixture(scope="module")
def scores(tagger, labels):
    """[sounds, classes], of two seconds each."""
    samples, rate = soundfile.read(HELD_OUT / "sounds.ogg", dtype="float32")
    assert rate == 16_000 and len(samples) == 2 * rate * len(labels)
    probs, _ = tagger.step(samples.reshape(len(labels), -1), tagger.init(len(labels)))
    return np.asarray(probs)


def test_a_run_of_its_name_does_not_hide_it(tagger, tmp_path, monkeypatch):
    (tmp_path / DEFAULT_MODEL / "model").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert Tagger.load(DEFAULT_MODEL).source == tagger.source
    with pytest.raises(SatError, match=re.escape(str(tmp_path))):
        Tagger.load(tmp_path / DEFAULT_MODEL)


def test_it_is_small(tagger):
    files = [path for path in (BUNDLED / DEFAULT_MODEL).rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 4 * 2**20
    assert len(tagger.labels) == 527


def test_held_out_sounds_are_ranked_high(tagger, labels, scores):
    """Counts, for each of 40 sounds, the other classes of these that rank above its own."""
    own = [tagger.labels.index(label) for label in labels]
    behind = [(row[own] > row[index]).sum() for row, index in zip(scores, own, strict=True)]
    print(f"first {np.mean(np.equal(behind, 0)):.3f}, of three {np.mean(np.less(behind, 3)):.3f}")
    assert np.mean(np.equal(behind, 0)) >= 0.5
    assert np.mean(np.less(behind, 3)) >= 0.8


def test_classes_without_training_sounds_are_never_shown(tagger):
    names = (HELD_OUT / "never_learned.txt").read_text(encoding="utf-8").splitlines()
    thresholds = load_thresholds(DEFAULT_MODEL, find_checkpoint(DEFAULT_MODEL))
    never = [tagger.labels.index(name) for name in names]
    assert len(set(never)) == 177
    assert (thresholds[never] == 1.0).all() and (np.delete(thresholds, never) < 1.0).any()


@pytest.mark.parametrize(
    ("file", "begin", "end", "label"),
    [
        ("bells", 0, 2, "Tubular bells"),
        ("choir", 0, 2, "Singing"),
        ("concert", 0, 2, "Cello"),
        ("concert", 4, 8, "Clapping"),
        ("crickets", 0, 4, "Cricket"),
        ("dog", 0, 2, "Bark"),
        ("fire", 0, 4, "Fire"),
        ("rain", 0, 4, "Rain"),
        ("water", 0, 2, "Water"),
        ("wind", 0, 4, "Wind"),
    ],
)
def test_the_demo_is_right(tagger, file, begin, end, label):
    chunks = [
        c for c in tagger.tag_file(ROOT / "examples" / f"{file}.flac") if begin <= c.start < end
    ]
    assert len(chunks) == (end - begin) / 2
    for chunk in chunks:
        named = [tagger.labels[index] for index in np.argsort(-chunk.probs)[:3]]
        assert label in named and chunk.probs[tagger.labels.index(label)] > 0.3
