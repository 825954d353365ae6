"""Classes without training sounds are withheld."""

import json
import shutil

import numpy as np
import pytest

from projects.box_model.scenes.sounds import all_sounds, with_parents
from projects.box_model.unlearned import unlearned_classes, withhold
from sat_jax.errors import SatError
from sat_jax.weights.catalog import BUNDLED, DEFAULT_MODEL
from sat_jax.weights.checkpoint import load_checkpoint
from sat_jax.weights.thresholds_file import load_thresholds


def test_only_their_thresholds_change(tmp_path):
    model = tmp_path / "model"
    shutil.copytree(BUNDLED / DEFAULT_MODEL, model)
    before = json.loads((model / "thresholds.json").read_text())
    for row in before["classes"]:
        row["threshold"] = 0.25
    (model / "thresholds.json").write_text(json.dumps(before))
    count = withhold(model)
    checkpoint = load_checkpoint(model)
    thresholds = load_thresholds(model, checkpoint)
    sounds = [sound for sound in all_sounds() if sound.split == "train"]
    learned = {name for sound in sounds for own in sound.labels for name in with_parents(own)}
    withheld = [label not in learned for label in checkpoint.labels]
    np.testing.assert_array_equal(thresholds, np.where(withheld, 1.0, 0.25))
    assert count == sum(withheld) == len(unlearned_classes())
    after = json.loads((model / "thresholds.json").read_text())
    assert after["about"] == before["about"] and after["weights"] == before["weights"]


def test_without_thresholds(tmp_path):
    with pytest.raises(SatError, match="save_thresholds"):
        withhold(tmp_path)
