"""Common classes no longer push rare ones off the top."""

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy.special import logit

from projects.box_model import balance, bundle
from projects.box_model.balance import choose_shift, lwlrap_over_classes
from projects.box_model.unlearned import unlearned_classes
from sat_jax.metrics.ranking import compute_metrics
from sat_jax.tagger import Tagger
from sat_jax.weights.catalog import BUNDLED, DEFAULT_MODEL
from sat_jax.weights.checkpoint import load_checkpoint
from tests.support.programs import run_program

EXAMPLES = Path(__file__).parents[3] / "examples"
SOUNDS = {"fire": "Fire", "dog": "Dog;Bark", "rain": "Rain", "bells": "Bell", "wind": "Wind"}


def test_with_as_many_clips_of_each_class_it_is_lwlrap():
    rng = np.random.default_rng(0)
    truth = np.eye(6, dtype=bool)[np.tile(np.arange(5), 4)]  # The last class has no clip.
    scores = rng.random(truth.shape)
    expected = compute_metrics(truth, scores).lwlrap
    assert lwlrap_over_classes(truth, scores) == pytest.approx(expected, abs=1e-12)


def test_a_rare_class_counts_as_much_as_a_common_one():
    truth = np.array([[1, 0, 0], [1, 0, 0], [1, 0, 0], [1, 1, 0]], bool)
    scores = np.array([[0.9, 0.1, 0.0], [0.9, 0.1, 0.0], [0.9, 0.1, 0.0], [0.9, 0.3, 0.4]])
    # The rare class is third, after one of two labels.
    assert lwlrap_over_classes(truth, scores) == pytest.approx((1 + 2 / 3) / 2)


def test_a_class_that_is_loud_everywhere_is_lowered():
    rng = np.random.default_rng(0)
    classes = np.repeat(np.arange(4), 50)
    truth = np.eye(6, dtype=bool)[classes]
    logits = rng.normal(-3.0, 1.0, (200, 3, 6)) + 2.0 * truth[:, None]
    logits[..., 0] += 3.0
    is_learned = np.array([True] * 5 + [False])
    share, shift, found = choose_shift(truth, list(logits), is_learned)
    assert share > 0.5 and shift[0] > 1.0 and shift[5] == 0.0
    assert shift[:5].sum() == pytest.approx(0.0, abs=1e-5)
    scores = (1 / (1 + np.exp(shift - logits))).mean(1)
    assert found[share] == pytest.approx(lwlrap_over_classes(truth, scores), abs=1e-6)
    assert found[share] == max(found.values()) > found[0.0] + 0.05


def test_only_the_bias_of_the_bundled_model_changes(tmp_path, monkeypatch, capsys):
    box = tmp_path / "models"
    shutil.copytree(BUNDLED / DEFAULT_MODEL, box / DEFAULT_MODEL)
    monkeypatch.setattr(balance, "BUNDLED", box)
    monkeypatch.setattr(bundle, "BUNDLED", box)
    monkeypatch.setattr(balance, "SHARES", np.array([0.0, 0.5]))
    table = tmp_path / "clips.csv"
    with table.open("w", encoding="utf-8", newline="") as file:
        rows = [[EXAMPLES / f"{name}.flac", labels] for name, labels in SOUNDS.items()]
        csv.writer(file).writerows([["file", "labels"], *rows])
    before = Tagger(load_checkpoint(box / DEFAULT_MODEL))
    # The share is 0.5, as if all recordings had gained by it.
    monkeypatch.setattr(balance, "lwlrap_over_classes", lambda _, scores: -scores.mean())
    assert run_program(balance.PROGRAM, "balance", f"--clips={table}") == 0
    assert "on 5 recordings" in capsys.readouterr().out
    after = Tagger(load_checkpoint(box / DEFAULT_MODEL))
    old, new = (
        np.concatenate(
            [
                logit([chunk.probs for chunk in tagger.tag_file(EXAMPLES / f"{name}.flac")])
                for name in SOUNDS
            ]
        )
        for tagger in (before, after)
    )
    is_learned = ~np.isin(before.labels, unlearned_classes())
    mean = old.mean(0)
    habit = np.where(is_learned, mean - mean[is_learned].mean(), 0.0)
    np.testing.assert_allclose(new, old - 0.5 * habit, atol=0.04)  # The bias is rounded.
    assert np.abs(habit).max() > 1.0
