"""The training loop: stopped and started again at will, it makes the same model."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
import time
import types
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from sat_jax.config import ModelConfig
from sat_jax.errors import SatError
from sat_jax.models.transformer import init_variables
from sat_jax.tagger import Tagger, find_checkpoint
from sat_jax.training.checkpoints import BestModels
from sat_jax.training.config import OptimizerConfig, TrainConfig
from sat_jax.training.loop import _checked, train
from sat_jax.training.workdir import RunLog
from sat_jax.weights.checkpoint import load_checkpoint

MODEL = ModelConfig(
    width=64, depth=1, target_length=32, cache_length=32, num_classes=3, dropout=0.1
)
CONFIG = TrainConfig(
    model=MODEL,
    optimizer=OptimizerConfig(learning_rate=1e-3, warmup_fraction=0.3, clip_norm=1.0),
    num_steps=6,
    checkpoint_every=3,
    log_every=1,
)
LABELS = ("hum", "hiss", "silence")
SAMPLES = 10_400  # two pieces of 32 frames


class Killed(BaseException):
    """Ends a run as SIGKILL would: nothing of ours catches it."""


def batch(index):
    rng = np.random.default_rng(index)
    waveform = 0.1 * rng.standard_normal((2, SAMPLES)).astype(np.float32)
    target = rng.random((2, 3)).astype(np.float32)
    return {"waveform": waveform, "target": target, "clips": [f"{index}a.wav", f"{index}b.wav"]}


def endless(start):
    while True:
        yield batch(start)
        start += 1


def first_weights(key):
    return jax.jit(init_variables, static_argnums=0)(MODEL, key)


def run(workdir, batches=endless, config=CONFIG, **kwargs):
    return train(config, batches, workdir, make_variables=first_weights, labels=LABELS, **kwargs)


def weights(workdir):
    return jax.tree.leaves_with_path(load_checkpoint(workdir / "model").variables)


def log(workdir):
    lines = (workdir / "log.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def without_speed(lines):
    return [{k: v for k, v in line.items() if k != "clips_per_s"} for line in lines]


def assert_same_run(one, other):
    for (path, array), (_, twin) in zip(weights(one), weights(other), strict=True):
        np.testing.assert_array_equal(array, twin, err_msg=str(path))
    assert without_speed(log(one)) == without_speed(log(other))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The workdir of a run that was never stopped."""
    workdir = tmp_path_factory.mktemp("whole")
    assert run(workdir).step == 6
    return workdir


def stopped_by(action, at):
    """Batches during the `at`th of which (counted from 0) something happens."""

    def batches(start):
        for index in range(start, 1000):
            if index == at:
                action()
            yield batch(index)

    return batches


def kill():
    raise Killed


@pytest.mark.parametrize("at", [2, 3, 5])
def test_a_killed_run_goes_on_to_the_same_weights(whole, tmp_path, at):
    with pytest.raises(Killed):
        run(tmp_path, stopped_by(kill, at))
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 5, "lo')  # the line it was killed in
    started_at = []

    def batches(start):
        started_at.append(start)
        return endless(start)

    assert run(tmp_path, batches).step == 6
    assert started_at == [3 * (at // 3)]
    assert_same_run(whole, tmp_path)


def test_sigterm_saves_and_stops(whole, tmp_path):
    handler = signal.getsignal(signal.SIGTERM)
    result = run(tmp_path, stopped_by(lambda: os.kill(os.getpid(), signal.SIGTERM), at=1))
    assert (result.step, result.model) == (2, None)
    assert signal.getsignal(signal.SIGTERM) == handler
    assert not (tmp_path / "model").exists()
    assert run(tmp_path).step == 6
    assert_same_run(whole, tmp_path)


def test_sigterm_in_the_last_step_leaves_measuring_and_model_to_the_next_start(tmp_path):
    config = dataclasses.replace(CONFIG, evaluate_every=4, keep_best=2)
    run(tmp_path / "whole", config=config, validation=validation)
    stop = stopped_by(lambda: os.kill(os.getpid(), signal.SIGTERM), at=5)
    result = run(tmp_path / "stopped", stop, config=config, validation=validation)
    assert (result.step, result.model) == (6, None)
    assert not (tmp_path / "stopped" / "model").exists()
    assert run(tmp_path / "stopped", config=config, validation=validation).model
    assert_same_run(tmp_path / "whole", tmp_path / "stopped")


def test_ctrl_c_saves_before_it_interrupts(whole, tmp_path, capfd):
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, stopped_by(lambda: os.kill(os.getpid(), signal.SIGINT), at=1))
    assert signal.getsignal(signal.SIGINT) == handler
    assert "stopping after this step" in capfd.readouterr().err
    started_at = []
    assert run(tmp_path, lambda start: started_at.append(start) or endless(start)).step == 6
    assert started_at == [2], "the step that was under way is not lost"
    assert_same_run(whole, tmp_path)


def test_ctrl_c_that_is_ignored_stops_nothing(tmp_path):
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        result = run(tmp_path, stopped_by(lambda: os.kill(os.getpid(), signal.SIGINT), at=1))
    finally:
        signal.signal(signal.SIGINT, handler)
    assert result.step == 6


def test_training_in_another_thread_works(whole, tmp_path):
    thread = threading.Thread(target=run, args=(tmp_path,))
    thread.start()
    thread.join()
    assert_same_run(whole, tmp_path)


def test_a_finished_run_is_left_as_it_is(whole):
    before = (whole / "model" / "weights").stat().st_mtime_ns
    result = run(whole)
    assert (result.step, result.model) == (6, whole / "model")
    assert (whole / "model" / "weights").stat().st_mtime_ns == before


def test_the_model_is_a_tagger(whole):
    tagger = Tagger(find_checkpoint(whole / "model"))
    chunks = list(tagger.stream([batch(0)["waveform"][0]]))
    assert tagger.labels == LABELS
    assert np.isfinite([chunk.probs for chunk in chunks]).all()


def test_the_log_tells_how_it_goes(whole):
    lines = log(whole)
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert all(line["loss"] > 0 and line["clips_per_s"] > 0 for line in lines)
    np.testing.assert_allclose([line["lr"] for line in lines[:2]], [5e-4, 1e-3])
    assert lines[-1]["lr"] == pytest.approx(0.0, abs=1e-9)
    about = json.loads((whole / "config.json").read_text())
    assert TrainConfig.from_dict(about["config"]) == CONFIG
    assert about["versions"]["jax"] == jax.__version__
    assert about["devices"] == {"kind": "cpu", "count": jax.device_count()}


def test_only_the_latest_checkpoints_are_kept(tmp_path):
    config = dataclasses.replace(CONFIG, checkpoint_every=1, keep_checkpoints=2)
    run(tmp_path, config=config)
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["5", "6"]


def test_a_few_clips_are_learned_by_heart(tmp_path):
    few = batch(0) | {"target": np.array([[1, 0, 0], [0, 1, 0]], np.float32)}
    config = dataclasses.replace(
        CONFIG,
        model=dataclasses.replace(MODEL, dropout=0.0),
        optimizer=OptimizerConfig(learning_rate=3e-3),
        num_steps=40,
        checkpoint_every=40,
    )
    run(tmp_path, lambda start: iter([few] * 40), config)
    losses = [line["loss"] for line in log(tmp_path)]
    assert losses[0] > 0.5 and losses[-1] < 0.1 * losses[0]


def test_a_loss_that_is_not_finite_stops_the_run_unsaved(tmp_path):
    def batches(start):
        for index in range(start, 1000):
            spoilt = batch(index)
            if index == 4:
                spoilt["target"] = np.full_like(spoilt["target"], np.nan)
            yield spoilt

    config = dataclasses.replace(CONFIG, checkpoint_every=1, keep_checkpoints=9)
    with pytest.raises(SatError, match="step 5 has loss nan"):
        run(tmp_path, batches, config)
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["1", "2", "3", "4"]
    assert log(tmp_path)[-1]["clips"] == ["4a.wav", "4b.wav"]
    assert run(tmp_path, config=config).step == 6


def test_another_config_does_not_go_on(whole):
    other = dataclasses.replace(CONFIG, seed=1, num_steps=7)
    with pytest.raises(SatError, match=r"another config.*num_steps 6 to 7, seed 0 to 1"):
        run(whole, config=other)
    assert run(whole, config=dataclasses.replace(CONFIG, log_every=5)).step == 6


def test_a_folder_in_the_models_place_is_found_before_training(tmp_path):
    (tmp_path / "model").mkdir()
    with pytest.raises(SatError, match="model exists before"):
        run(tmp_path, stopped_by(kill, 0))


def test_a_folder_that_another_run_writes_is_left_alone(whole, tmp_path):
    def batches(start):
        for one in endless(start):
            with pytest.raises(SatError, match="is in use by another run: wait for it"):
                run(tmp_path)
            yield one

    assert run(tmp_path, batches).step == 6
    assert_same_run(tmp_path, whole)


def test_a_workdir_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SatError, match=r"cannot write .*file: File exists; choose another place"):
        run(tmp_path / "file")


def test_a_damaged_checkpoint_is_named(tmp_path):
    with pytest.raises(Killed):
        run(tmp_path, stopped_by(kill, 4))
    for path in (tmp_path / "checkpoints" / "3").rglob("*"):
        if path.is_file() and "metadata" not in path.name.lower():
            path.write_bytes(b"")
    with pytest.raises(SatError, match=r"checkpoints/3 is damaged: remove this folder"):
        run(tmp_path)


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        (lambda start: iter([]), "the batches ended"),
        (lambda start: iter([batch(0) | {"target": np.zeros((2, 4))}]), "the model has 3 classes"),
    ],
)
def test_batches_that_do_not_suit_are_refused(tmp_path, batches, message):
    with pytest.raises(SatError, match=message):
        run(tmp_path, batches)


def validation():
    """Clips to measure on; what they are labelled makes some steps better than others."""
    rng = np.random.default_rng(7)
    yield {
        "waveform": 0.1 * rng.standard_normal((8, SAMPLES)).astype(np.float32),
        "num_samples": np.full(8, SAMPLES, np.int32),
        "is_real": np.ones(8, bool),
        "target": (rng.random((8, 3)) > 0.5).astype(np.float32),
    }


def test_the_average_of_the_best_models_is_exported(tmp_path):
    config = dataclasses.replace(CONFIG, evaluate_every=1, keep_best=2, ema_decay=0.5)
    result = run(tmp_path, config=config, validation=validation)
    measured = {x["step"]: x["validation"]["mAP"] for x in log(tmp_path) if "validation" in x}
    assert list(measured) == [1, 2, 3, 4, 5, 6]
    kept = sorted(int(path.name) for path in (tmp_path / "best").iterdir())
    worst_kept = min(measured[step] for step in kept)
    assert len(kept) == 2
    assert all(measured[step] <= worst_kept for step in measured if step not in kept)
    with ocp.StandardCheckpointer() as reader:
        models = [reader.restore((tmp_path / "best" / str(s) / "default").resolve()) for s in kept]
    jax.tree.map(
        lambda mean, *parts: np.testing.assert_allclose(mean, np.mean(parts, 0), atol=1e-7),
        load_checkpoint(result.model).variables,
        *models,
    )


def test_a_killed_run_keeps_the_best_models(tmp_path):
    config = dataclasses.replace(CONFIG, evaluate_every=2, keep_best=2)
    run(tmp_path / "whole", config=config, validation=validation)
    with pytest.raises(Killed):
        run(tmp_path / "killed", stopped_by(kill, 5), config=config, validation=validation)
    run(tmp_path / "killed", config=config, validation=validation)
    assert_same_run(tmp_path / "whole", tmp_path / "killed")


@pytest.mark.parametrize("at", [2, 6])
def test_validation_that_fails_costs_no_step(tmp_path, at):
    """What was saved before is measured by the next start, and the run is as if it never failed."""
    config = dataclasses.replace(CONFIG, evaluate_every=2, checkpoint_every=100, keep_best=2)
    run(tmp_path / "whole", config=config, validation=validation)
    measured = []

    def broken():
        measured.append(2 * len(measured) + 2)
        if measured[-1] == at:
            raise SatError("held_out.wav is truncated: repair it")
        return validation()

    with pytest.raises(SatError, match="held_out"):
        run(tmp_path / "broken", config=config, validation=broken)
    run(tmp_path / "broken", stopped_by(kill, 6), config=config, validation=validation)
    assert_same_run(tmp_path / "whole", tmp_path / "broken")
    # Once through, it is left alone.
    run(tmp_path / "broken", stopped_by(kill, 0), config=config, validation=broken)


def test_a_head_that_learns_alone_goes_on_as_well(tmp_path):
    alone = dataclasses.replace(CONFIG.optimizer, layer_decay=0.0)
    config = dataclasses.replace(CONFIG, optimizer=alone)
    run(tmp_path / "whole", config=config)
    with pytest.raises(Killed):
        run(tmp_path / "killed", stopped_by(kill, 4), config=config)
    run(tmp_path / "killed", config=config)
    assert_same_run(tmp_path / "whole", tmp_path / "killed")
    first = first_weights(jax.random.split(jax.random.key(config.seed))[0])["params"]
    trained = load_checkpoint(tmp_path / "whole" / "model").variables["params"]
    moved = {
        name
        for name in first
        if any(
            not np.array_equal(a, b)
            for a, b in zip(
                jax.tree.leaves(first[name]), jax.tree.leaves(trained[name]), strict=True
            )
        )
    }
    assert moved == {"norm", "head_norm", "head"}


def test_a_run_that_saved_nothing_may_begin_with_another_config(whole, tmp_path):
    with pytest.raises(Killed):
        run(tmp_path, stopped_by(kill, 2), config=dataclasses.replace(CONFIG, seed=1))
    run(tmp_path)
    assert_same_run(tmp_path, whole)


def test_changes_that_are_accepted_go_on_from_the_last_checkpoint(whole, tmp_path):
    with pytest.raises(Killed):
        run(tmp_path, stopped_by(kill, 4))
    calm = dataclasses.replace(CONFIG.optimizer, learning_rate=1e-9)
    calmer = dataclasses.replace(CONFIG, optimizer=calm)
    with pytest.raises(
        SatError, match=r"--accept_changes: optimizer\.learning_rate 0\.001 to 1e-09"
    ):
        run(tmp_path, config=calmer)
    starts = []
    run(tmp_path, lambda at: starts.append(at) or endless(at), config=calmer, accept_changes=True)
    assert starts == [3]
    assert [line["lr"] < 1e-8 for line in log(tmp_path)] == [False] * 3 + [True] * 3
    assert (
        json.loads((tmp_path / "config.json").read_text())["config"]["optimizer"]["learning_rate"]
        == 1e-9
    )


def test_devices_that_cannot_share_a_batch_are_told_of():
    three_devices = types.SimpleNamespace(size=3)
    with pytest.raises(SatError, match="batch of 2 can't be shared by 3 devices"):
        next(_checked(endless(0), CONFIG, three_devices))


def test_models_measured_on_other_clips_are_not_compared(tmp_path):
    config = dataclasses.replace(CONFIG, evaluate_every=2, data={"validation_clips": "some"})
    other = dataclasses.replace(config, data={"validation_clips": "others"})
    with pytest.raises(Killed):
        run(tmp_path, stopped_by(kill, 4), config=config, validation=validation)
    with pytest.raises(SatError, match="best holds models that were measured on other clips"):
        run(tmp_path, config=other, validation=validation, accept_changes=True)
    (tmp_path / "best").rename(tmp_path / "best_before")
    run(tmp_path, config=other, validation=validation, accept_changes=True)
    assert {path.name for path in (tmp_path / "best").iterdir()} <= {"4", "6"}


def test_a_start_that_is_refused_leaves_the_record_alone(whole):
    before = (whole / "config.json").read_bytes()
    longer = dataclasses.replace(CONFIG, num_steps=9)
    with pytest.raises(SatError, match="model exists before the run is through"):
        run(whole, config=longer, accept_changes=True)
    assert (whole / "config.json").read_bytes() == before
    assert run(whole).step == 6


@pytest.mark.parametrize(
    "change",
    [
        {"ema_decay": 0.5},
        {"model": dataclasses.replace(MODEL, dropout=0.2)},
        {"optimizer": dataclasses.replace(CONFIG.optimizer, accumulate=2)},
    ],
)
def test_what_checkpoints_are_made_for_cant_be_changed(whole, change):
    with pytest.raises(SatError, match="workdir, take back what was changed: "):
        run(whole, config=dataclasses.replace(CONFIG, **change), accept_changes=True)


def test_minutes_call_for_a_checkpoint_too(tmp_path):
    config = dataclasses.replace(CONFIG, checkpoint_every=1000, checkpoint_minutes=1e-9)
    with pytest.raises(Killed):
        run(tmp_path, stopped_by(kill, 4), config=config)
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} >= {"2", "3"}


def test_a_full_disk_is_told_of_in_a_line(tmp_path, capfd):
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    complaint = pytest.raises(SatError, match=r"^checkpoints can't be written to .*best: .+$")
    with complaint, BestModels(tmp_path / "best", keep=1) as best:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
        try:
            weights = np.random.default_rng(0).standard_normal(100_000)
            best.save(1, {"weights": weights}, 0.5)
            best.wait()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "Traceback" not in capfd.readouterr().err


def test_a_log_that_finds_no_room_is_named_and_closing_it_hides_nothing(tmp_path):
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    log = RunLog(tmp_path / "log.jsonl", step=0)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(SatError, match=r"^cannot write .*log\.jsonl: File too large"):
            log.write(text="x" * 5000)
        log.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_the_source_of_batches_is_closed(tmp_path):
    closed = []

    def batches(start):
        try:
            yield from endless(start)
        finally:
            closed.append(True)

    run(tmp_path, batches)
    assert closed == [True]


def start_process(workdir):
    """The same run in a process of its own."""
    code = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); "
        f"import pathlib, test_training_loop as t; t.run(pathlib.Path({str(workdir)!r}))"
    )
    return subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[2])


@pytest.mark.slow
def test_sigkill_at_any_moment_costs_nothing(whole, tmp_path):
    for seconds in (0.0, 0.5, 1.0):
        process = start_process(tmp_path)
        started = time.monotonic()
        while not (tmp_path / "log.jsonl").exists() and process.poll() is None:
            assert time.monotonic() - started < 300
            time.sleep(0.05)
        time.sleep(seconds)
        process.kill()
        process.wait()
    process = start_process(tmp_path)
    assert process.wait(timeout=300) == 0
    assert_same_run(whole, tmp_path)
