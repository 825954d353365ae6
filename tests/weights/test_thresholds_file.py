"""thresholds.json: read back as saved; damaged files are refused."""

import json
import re

import numpy as np
import pytest

from sat_jax.config import ModelConfig
from sat_jax.errors import SatError
from sat_jax.find_model import find_checkpoint
from sat_jax.weights.catalog import DEFAULT_MODEL
from sat_jax.weights.checkpoint import Checkpoint, save_checkpoint
from sat_jax.weights.thresholds_file import has_thresholds, load_thresholds, save_thresholds

LABELS = ("Dog", "Cat", "Rain")


@pytest.fixture
def checkpoint():
    config = ModelConfig(width=64, depth=1, target_length=32, num_classes=3)
    return Checkpoint(config=config, variables={"w": np.ones(2)}, labels=LABELS)


@pytest.fixture
def path(checkpoint, tmp_path):
    return save_thresholds(
        tmp_path, checkpoint, {"threshold": np.array([0.25, 0.0, 1.0])}, about={}
    )


def test_round_trip(checkpoint, path):
    values = load_thresholds(path.parent, checkpoint)
    assert (values.dtype, values.tolist()) == (np.float32, [0.25, 0.0, 1.0])


def test_a_model_without_a_folder_of_its_own_gets_one(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setenv("SAT_JAX_CACHE", str(tmp_path / "cache"))
    columns = {"threshold": np.array([0.25, 0.0, 1.0])}
    path = save_thresholds("bundled", checkpoint, columns, about={})
    assert path.is_relative_to(tmp_path / "cache")
    assert load_thresholds("bundled", checkpoint).tolist() == [0.25, 0.0, 1.0]


def test_a_bundled_model_has_thresholds_that_the_user_s_own_replace(tmp_path, monkeypatch):
    monkeypatch.setenv("SAT_JAX_CACHE", str(tmp_path / "cache"))
    checkpoint = find_checkpoint(DEFAULT_MODEL)
    bundled = load_thresholds(DEFAULT_MODEL, checkpoint)
    assert bundled.shape == (527,) and len(set(bundled.tolist())) > 20
    own = np.full(527, 0.25, np.float32)
    save_thresholds(DEFAULT_MODEL, checkpoint, {"threshold": own}, about={})
    assert load_thresholds(DEFAULT_MODEL, checkpoint).tolist() == own.tolist()


def test_a_checkpoint_with_the_bundled_model_s_name_has_none_of_its_thresholds(
    checkpoint, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    save_checkpoint(DEFAULT_MODEL, checkpoint)
    assert not has_thresholds(DEFAULT_MODEL)


@pytest.mark.parametrize("value", ["0.5", None, True, 1.5, -0.1, float("nan"), [0.5]])
def test_invalid_thresholds_are_named(checkpoint, path, value):
    data = json.loads(path.read_text())
    data["classes"][1]["threshold"] = value
    path.write_text(json.dumps(data))
    with pytest.raises(SatError, match=re.escape(str(path))) as caught:
        load_thresholds(path.parent, checkpoint)
    assert "'Cat'" in str(caught.value) and json.dumps(value) in str(caught.value)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("{", "damaged"),
        ("[" * 100_000, "damaged"),
        ("[]", "classes"),
        ("{}", "classes"),
        ('{"classes": [0.5]}', "classes"),
        ('{"weights": 1, "classes": [{}]}', "1 classes"),
        ('{"weights": 1, "classes": [{}, {}, {}]}', "other weights"),
    ],
)
def test_damaged_files(checkpoint, path, text, named):
    path.write_text(text)
    with pytest.raises(SatError, match=re.escape(str(path))) as caught:
        load_thresholds(path.parent, checkpoint)
    assert named in str(caught.value)
