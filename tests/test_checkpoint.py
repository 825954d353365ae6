"""Checkpoint folders beside what was put into them, whole and damaged."""

import sys
import threading
import time

import numpy as np
import pytest

from sat_jax.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from sat_jax.errors import SatError
from sat_jax.labels import audioset_labels
from sat_jax.models.registry import model_config

NUM_ARRAYS = 100


@pytest.fixture
def checkpoint() -> Checkpoint:
    rng = np.random.default_rng(0)
    params = {
        f"layer{index}": {"kernel": rng.standard_normal((200, 200)).astype(np.float32)}
        for index in range(NUM_ARRAYS)
    }
    return Checkpoint(
        config=model_config("SAT_XS_2s"),
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
    for name, layer in checkpoint.variables["params"].items():
        np.testing.assert_array_equal(read.variables["params"][name]["kernel"], layer["kernel"])


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
