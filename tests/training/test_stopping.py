"""Signals and time: when a run saves its state and stops."""

import dataclasses
import os
import signal

import pytest

from tests.support.small_run import (
    CONFIG,
    Killed,
    assert_same_run,
    endless,
    kill,
    run,
    stopped_by,
    validation,
)


def send(number):
    return lambda: os.kill(os.getpid(), number)


def test_sigterm_saves_and_stops(whole, tmp_path):
    handler = signal.getsignal(signal.SIGTERM)
    result = run(tmp_path, stopped_by(send(signal.SIGTERM), at=1))
    assert (result.step, result.model) == (2, None)
    assert signal.getsignal(signal.SIGTERM) == handler
    assert not (tmp_path / "model").exists()
    assert run(tmp_path).step == 6
    assert_same_run(whole, tmp_path)


def test_sigterm_in_the_last_step_leaves_validation_and_model_to_the_next_start(
    validated, tmp_path
):
    result = run(tmp_path, stopped_by(send(signal.SIGTERM), at=5), validation=validation)
    assert (result.step, result.model) == (6, None)
    assert not (tmp_path / "model").exists()
    assert run(tmp_path, validation=validation).model
    assert_same_run(validated, tmp_path)


def test_ctrl_c_saves_before_it_interrupts(whole, tmp_path, capfd):
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, stopped_by(send(signal.SIGINT), at=1))
    assert signal.getsignal(signal.SIGINT) == handler
    assert "Ctrl-C" in capfd.readouterr().err
    started_at = []
    assert run(tmp_path, lambda start: started_at.append(start) or endless(start)).step == 6
    assert started_at == [2], "the step under way is not lost"
    assert_same_run(whole, tmp_path)


def test_ctrl_c_that_is_ignored_stops_nothing(tmp_path):
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        result = run(tmp_path, stopped_by(send(signal.SIGINT), at=1))
    finally:
        signal.signal(signal.SIGINT, handler)
    assert result.step == 6


def test_a_checkpoint_is_written_after_some_minutes(tmp_path):
    config = dataclasses.replace(CONFIG, checkpoint_every=1000, checkpoint_minutes=1e-9)
    with pytest.raises(Killed):
        run(tmp_path, stopped_by(kill, 4), config=config)
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} >= {"2", "3"}
