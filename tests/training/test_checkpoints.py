"""Checkpoints and logs on full disks."""

import errno
import gc
import os
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sat_jax.errors import SatError
from sat_jax.training.checkpoints import BestModels, RunCheckpoints
from sat_jax.training.progress import RunLog
from sat_jax.weights.checkpoint import load_checkpoint, save_checkpoint


def test_a_full_disk_is_an_error_of_one_line(tmp_path, file_size_limit, capfd, caplog):
    weights = {str(i): np.random.default_rng(i).standard_normal((100, 100)) for i in range(20)}
    with (
        pytest.raises(SatError, match=re.escape(str(tmp_path / "best"))) as raised,
        BestModels(tmp_path / "best", keep=1) as best,
    ):
        file_size_limit(10_000)
        best.save(1, jax.tree.map(jnp.asarray, weights), 0.5)
        best.wait()
    assert os.strerror(errno.EFBIG) in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1
    gc.collect()  # Of arrays that orbax abandoned.
    assert "Traceback" not in capfd.readouterr().err
    assert not [record for record in caplog.records if record.name == "asyncio"]


def test_a_model_on_a_full_disk_is_an_error_of_one_line(whole, tmp_path, file_size_limit, capfd):
    model = load_checkpoint(whole / "model")
    file_size_limit(10_000)
    with pytest.raises(SatError, match=re.escape(str(tmp_path / "model"))) as raised:
        save_checkpoint(tmp_path / "model", model)
    assert os.strerror(errno.EFBIG) in str(raised.value)
    gc.collect()
    assert "Traceback" not in capfd.readouterr().err
    assert not (tmp_path / "model").exists()


def test_a_log_on_a_full_disk_is_named_and_can_be_closed(tmp_path, file_size_limit):
    log = RunLog(tmp_path / "log.jsonl", step=0)
    file_size_limit(1000)
    with pytest.raises(SatError, match=re.escape(str(tmp_path / "log.jsonl"))):
        log.write(text="x" * 5000)
    log.close()


def test_checkpoints_and_best_models_have_barriers_of_their_own(tmp_path, monkeypatch):
    prefixes = []

    class Manager:
        def __init__(self, folder, options):
            prefixes.append(options.multiprocessing_options.barrier_sync_key_prefix)

    monkeypatch.setattr("orbax.checkpoint.CheckpointManager", Manager)
    RunCheckpoints(tmp_path / "checkpoints", keep=1)
    BestModels(tmp_path / "best", keep=1)
    assert all(prefixes) and len(set(prefixes)) == 2
