"""Checkpoints that are damaged, and disks that are full."""

import re

import numpy as np
import pytest

from sat_jax.errors import SatError
from sat_jax.training.checkpoints import BestModels, RunCheckpoints
from sat_jax.training.progress import RunLog


@pytest.fixture
def file_size_limit():
    """Returns a function that limits the size of files; the limit ends with the test."""
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_full_disk_is_an_error_of_one_line(tmp_path, file_size_limit, capfd):
    with (
        pytest.raises(SatError, match=re.escape(str(tmp_path / "best"))) as raised,
        BestModels(tmp_path / "best", keep=1) as best,
    ):
        file_size_limit(10_000)
        weights = np.random.default_rng(0).standard_normal(100_000)
        best.save(1, {"weights": weights}, 0.5)
        best.wait()
    assert len(str(raised.value).splitlines()) == 1
    assert "Traceback" not in capfd.readouterr().err


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
