"""A workdir has one run: other configs are refused, and changes that fit are accepted."""

import dataclasses
import json
import re

import pytest

from sat_jax.errors import SatError
from tests.support.small_run import (
    CONFIG,
    MODEL,
    Killed,
    assert_same_run,
    endless,
    kill,
    log,
    run,
    stopped_by,
    validation,
)


def test_another_config_is_refused(whole):
    other = dataclasses.replace(CONFIG, seed=1, num_steps=7)
    with pytest.raises(SatError, match="num_steps 6 to 7, seed 0 to 1") as raised:
        run(whole, config=other)
    assert str(whole) in str(raised.value)
    assert run(whole, config=dataclasses.replace(CONFIG, log_every=5)).step == 6


def test_a_workdir_in_use_is_refused(whole, tmp_path):
    def batches(start):
        for one in endless(start):
            with pytest.raises(SatError, match=re.escape(str(tmp_path))):
                run(tmp_path)
            yield one

    assert run(tmp_path, batches).step == 6
    assert_same_run(tmp_path, whole)


def test_a_workdir_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SatError, match=re.escape(str(tmp_path / "file"))):
        run(tmp_path / "file")


def test_a_workdir_without_checkpoints_takes_another_config(whole, tmp_path):
    with pytest.raises(Killed):
        run(tmp_path, stopped_by(kill, 2), config=dataclasses.replace(CONFIG, seed=1))
    run(tmp_path)
    assert_same_run(tmp_path, whole)


def test_accepted_changes_resume_from_the_last_checkpoint(tmp_path):
    with pytest.raises(Killed):
        run(tmp_path, stopped_by(kill, 4))
    slow = dataclasses.replace(CONFIG.optimizer, learning_rate=1e-9)
    config = dataclasses.replace(CONFIG, optimizer=slow)
    with pytest.raises(SatError, match=r"--accept_changes.* 0\.001 to 1e-09"):
        run(tmp_path, config=config)
    starts = []
    run(tmp_path, lambda at: starts.append(at) or endless(at), config=config, accept_changes=True)
    assert starts == [3]
    assert [line["lr"] < 1e-8 for line in log(tmp_path)] == [False] * 3 + [True] * 3
    record = json.loads((tmp_path / "config.json").read_text())
    assert record["config"]["optimizer"]["learning_rate"] == 1e-9


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"ema_decay": 0.5}, "ema_decay"),
        ({"model": dataclasses.replace(MODEL, dropout=0.2)}, "model.dropout"),
        (
            {"optimizer": dataclasses.replace(CONFIG.optimizer, accumulate=2)},
            "optimizer.accumulate",
        ),
    ],
)
def test_changes_that_checkpoints_do_not_fit_are_refused(whole, change, name):
    with pytest.raises(SatError, match=re.escape(name)):
        run(whole, config=dataclasses.replace(CONFIG, **change), accept_changes=True)


def test_a_refused_start_does_not_change_the_record(whole):
    before = (whole / "config.json").read_bytes()
    longer = dataclasses.replace(CONFIG, num_steps=9)
    with pytest.raises(SatError, match=re.escape(str(whole / "model"))):
        run(whole, config=longer, accept_changes=True)
    assert (whole / "config.json").read_bytes() == before


def test_models_scored_on_other_clips_are_not_compared(tmp_path):
    config = dataclasses.replace(CONFIG, data={"validation_clips": "some"})
    other = dataclasses.replace(CONFIG, data={"validation_clips": "others"})
    with pytest.raises(Killed):
        run(tmp_path, stopped_by(kill, 4), config=config, validation=validation)
    with pytest.raises(SatError, match=re.escape(str(tmp_path / "best"))):
        run(tmp_path, config=other, validation=validation, accept_changes=True)
    (tmp_path / "best").rename(tmp_path / "best_before")
    run(tmp_path, config=other, validation=validation, accept_changes=True)
    assert {path.name for path in (tmp_path / "best").iterdir()} <= {"4", "6"}
