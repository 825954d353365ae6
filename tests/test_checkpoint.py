"""Checkpoint folders beside what was put into them, whole and damaged."""

import dataclasses
import json
import shutil
import sys
import threading
import time

import jax
import numpy as np
import pytest

from sat_jax.checkpoint import Checkpoint, fingerprint, load_checkpoint, save_checkpoint
from sat_jax.errors import SatError
from sat_jax.labels import audioset_labels
from sat_jax.models.registry import model_config
from sat_jax.models.transformer import init_variables

NUM_ARRAYS = 100


@pytest.fixture
def checkpoint() -> Checkpoint:
    rng = np.random.default_rng(0)
    config = model_config("SAT_XS_2s")
    params = {
        f"layer{index}": {"kernel": rng.standard_normal((200, 200)).astype(np.float32)}
        for index in range(NUM_ARRAYS)
    }
    # What a checkpoint is recognised by.
    params |= {f"blocks_{index}": {"bias": np.zeros(1)} for index in range(config.depth)}
    params["head"] = {"bias": np.zeros(527)}
    params["time_pos_embed"] = np.zeros((config.time_positions, config.width))
    params["freq_pos_embed"] = np.zeros((config.freq_patches, config.width))
    params = jax.tree.map(lambda x: x.astype(np.float32), params)
    return Checkpoint(
        config=config,
        variables={"params": params},
        labels=tuple(label.name for label in audioset_labels()),
        source="a test",
    )


def test_what_is_read_is_what_was_written(checkpoint, tmp_path):
    save_checkpoint(tmp_path / "model", checkpoint)
    read = load_checkpoint(tmp_path / "model")
    assert (read.config, read.labels, read.source) == (
        checkpoint.config,
        checkpoint.labels,
        checkpoint.source,
    )
    jax.tree.map(np.testing.assert_array_equal, read.variables, checkpoint.variables)


def test_what_is_there_is_never_overwritten(checkpoint, tmp_path):
    save_checkpoint(tmp_path / "model", checkpoint)
    with pytest.raises(SatError, match="exists: choose another folder"):
        save_checkpoint(tmp_path / "model", checkpoint)


def test_damaged_weights_are_one_line_and_nothing_later(checkpoint, tmp_path, monkeypatch):
    save_checkpoint(tmp_path / "model", checkpoint)
    for path in (tmp_path / "model" / "weights").rglob("*"):
        if path.is_file() and "d" in path.parts:
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    late: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: late.append(unraisable))
    with pytest.raises(SatError, match=r"model is damaged: its weights can't be read: .") as caught:
        load_checkpoint(tmp_path / "model")
    assert "\n" not in str(caught.value)
    time.sleep(0.5)  # Threads that nothing can wait for may still complain.
    assert late == []


def test_weights_that_changed_are_noticed(checkpoint, tmp_path):
    """A flipped bit that can still be read as a number must not become a wrong answer."""
    save_checkpoint(tmp_path / "model", checkpoint)
    other = {"layer0": {"kernel": checkpoint.variables["params"]["layer0"]["kernel"].copy()}}
    other["layer0"]["kernel"][3, 4] *= -1
    params = {"params": checkpoint.variables["params"] | other}
    save_checkpoint(tmp_path / "other", dataclasses.replace(checkpoint, variables=params))
    shutil.rmtree(tmp_path / "model" / "weights")
    shutil.copytree(tmp_path / "other" / "weights", tmp_path / "model" / "weights")
    with pytest.raises(SatError, match="its weights are not those that were written"):
        load_checkpoint(tmp_path / "model")


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("depth", 3, "not of the size that its config says"),
        ("width", 192, "not of the size that its config says"),
        ("target_length", 400, "not of the size that its config says"),
        ("labels", [1] * 527, "labels are not a list of names"),
        ("labels", "x" * 527, "labels are not a list of names"),
        ("kind", [], r"holds a \[\] in checkpoint format 1"),
    ],
)
def test_a_config_that_does_not_fit_the_weights_is_noticed(field, value, message, tmp_path):
    config = model_config("SAT_XS_2s")
    variables = jax.jit(init_variables, static_argnums=0)(config, jax.random.key(0))
    labels = tuple(label.name for label in audioset_labels())
    save_checkpoint(tmp_path / "m", Checkpoint(config=config, variables=variables, labels=labels))
    assert load_checkpoint(tmp_path / "m").config == config
    path = tmp_path / "m" / "model" / "metadata"
    data = json.loads(path.read_text("utf-8"))
    (data if field in data else data["config"])[field] = value
    path.write_text(json.dumps(data), "utf-8")
    with pytest.raises(SatError, match=message):
        load_checkpoint(tmp_path / "m")


def test_complaints_of_others_are_passed_on(checkpoint, tmp_path, monkeypatch):
    """Reading a damaged checkpoint silences its own late arrays and no one else."""
    late: list[str] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda raised: late.append(str(raised.exc_value)))
    (tmp_path / "model" / "model").mkdir(parents=True)
    (tmp_path / "model" / "weights").mkdir()
    save_checkpoint(tmp_path / "whole", checkpoint)
    (tmp_path / "model" / "model" / "metadata").write_bytes(
        (tmp_path / "whole" / "model" / "metadata").read_bytes()
    )
    with pytest.raises(SatError, match="is damaged"):
        load_checkpoint(tmp_path / "model")

    class Complaining:
        def __del__(self) -> None:
            raise ValueError("mine")

    thread = threading.Thread(target=Complaining)
    thread.start()
    thread.join()
    assert late == ["mine"]


def test_the_fingerprint_follows_config_and_weights(checkpoint):
    changed = jax.tree.map(np.array, checkpoint.variables)
    next(iter(jax.tree.leaves(changed))).flat[0] += 1e-3
    other = dataclasses.replace(checkpoint.config, pad_last=not checkpoint.config.pad_last)
    same = fingerprint(checkpoint.config, jax.tree.map(np.array, checkpoint.variables))
    prints = {
        same,
        fingerprint(checkpoint.config, checkpoint.variables),
        fingerprint(checkpoint.config, changed),
        fingerprint(other, checkpoint.variables),
    }
    assert len(prints) == 3
