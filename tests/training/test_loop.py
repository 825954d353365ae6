"""The training loop: stopped and resumed at any step, it makes the same model."""

import dataclasses
import json
import re
import threading
import types

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from sat_jax.errors import SatError
from sat_jax.find_model import find_checkpoint
from sat_jax.tagger import Tagger
from sat_jax.training.batches import check_batches
from sat_jax.training.config import OptimizerConfig, TrainConfig
from sat_jax.weights.checkpoint import load_checkpoint
from tests.support.small_run import (
    CONFIG,
    LABELS,
    MODEL,
    Killed,
    assert_same_run,
    batch,
    endless,
    first_weights,
    kill,
    log,
    run,
    stopped_by,
    validation,
)


@pytest.mark.parametrize("at", [2, 3, 5])
def test_a_killed_run_resumes_to_the_same_weights(whole, tmp_path, at):
    with pytest.raises(Killed):
        run(tmp_path, stopped_by(kill, at))
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 5, "lo')  # The line it was killed in.
    started_at = []

    def batches(start):
        started_at.append(start)
        return endless(start)

    assert run(tmp_path, batches).step == 6
    assert started_at == [3 * (at // 3)]
    assert_same_run(whole, tmp_path)


def test_training_in_another_thread_works(whole, tmp_path):
    thread = threading.Thread(target=run, args=(tmp_path,))
    thread.start()
    thread.join()
    assert_same_run(whole, tmp_path)


def test_a_complete_run_is_not_changed(whole):
    before = (whole / "model" / "weights").stat().st_mtime_ns
    result = run(whole)
    assert (result.step, result.model) == (6, whole / "model")
    assert (whole / "model" / "weights").stat().st_mtime_ns == before


def test_the_model_is_a_tagger(whole):
    tagger = Tagger(find_checkpoint(whole / "model"))
    chunks = list(tagger.stream([batch(0)["waveform"][0]]))
    assert tagger.labels == LABELS
    assert np.isfinite([chunk.probs for chunk in chunks]).all()


def test_log_and_config_describe_the_run(whole):
    lines = log(whole)
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert all(line["loss"] > 0 and line["clips_per_s"] > 0 for line in lines)
    np.testing.assert_allclose([line["lr"] for line in lines[:2]], [5e-4, 1e-3])
    assert lines[-1]["lr"] == pytest.approx(0.0, abs=1e-9)
    record = json.loads((whole / "config.json").read_text())
    assert TrainConfig.from_dict(record["config"]) == CONFIG
    assert record["versions"]["jax"] == jax.__version__
    assert record["devices"] == {"kind": "cpu", "count": jax.device_count()}
    assert any((whole / "tensorboard").iterdir())


def test_a_few_clips_are_overfitted(tmp_path):
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

    config = dataclasses.replace(CONFIG, checkpoint_every=1, keep_checkpoints=3)
    with pytest.raises(SatError, match=r"step 5 .* nan .*4a\.wav, 4b\.wav"):
        run(tmp_path, batches, config)
    # Only the latest checkpoints are kept.
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["2", "3", "4"]
    assert log(tmp_path)[-1]["clips"] == ["4a.wav", "4b.wav"]
    assert run(tmp_path, config=config).step == 6


def test_a_folder_in_place_of_the_model_is_found_before_training(tmp_path):
    (tmp_path / "model").mkdir()
    with pytest.raises(SatError, match=re.escape(str(tmp_path / "model"))):
        run(tmp_path, stopped_by(kill, 0))


def test_batches_that_end_are_refused(tmp_path):
    with pytest.raises(SatError, match="batches"):
        run(tmp_path, lambda start: iter([]))


def test_targets_of_another_size_are_refused(tmp_path):
    with pytest.raises(SatError, match=r"\[2, 4\].* 3 classes"):
        run(tmp_path, lambda start: iter([batch(0) | {"target": np.zeros((2, 4))}]))


def test_a_batch_that_devices_cannot_share_is_refused():
    three_devices = types.SimpleNamespace(size=3)
    with pytest.raises(SatError, match=r"batch of 2 .* 3 devices"):
        next(check_batches(endless(0), CONFIG, three_devices))


def test_the_source_of_batches_is_closed(tmp_path):
    closed = []

    def batches(start):
        try:
            yield from endless(start)
        finally:
            closed.append(True)

    run(tmp_path, batches)
    assert closed == [True]


def test_the_average_of_the_best_models_is_exported(tmp_path):
    config = dataclasses.replace(CONFIG, evaluate_every=1, ema_decay=0.5)
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


def test_a_killed_run_keeps_the_best_models(validated, tmp_path):
    with pytest.raises(Killed):
        run(tmp_path, stopped_by(kill, 5), validation=validation)
    run(tmp_path, validation=validation)
    assert_same_run(validated, tmp_path)


@pytest.mark.parametrize("at", [2, 6])
def test_validation_that_fails_costs_no_step(validated, tmp_path, at):
    """The next start validates the saved state, and the run is as if nothing had failed."""
    measured = []

    def broken():
        measured.append(2 * len(measured) + 2)
        if measured[-1] == at:
            raise SatError("held_out.wav is truncated: repair it")
        return validation()

    with pytest.raises(SatError, match="held_out"):
        run(tmp_path, validation=broken)
    run(tmp_path, stopped_by(kill, 6), validation=validation)
    assert_same_run(validated, tmp_path)
    # A complete run is not validated again.
    run(tmp_path, stopped_by(kill, 0), validation=broken)


def test_a_run_that_trains_only_the_head_resumes_too(tmp_path):
    head_only = dataclasses.replace(CONFIG.optimizer, layer_decay=0.0)
    config = dataclasses.replace(CONFIG, optimizer=head_only)
    run(tmp_path / "whole", config=config)
    with pytest.raises(Killed):
        run(tmp_path / "killed", stopped_by(kill, 4), config=config)
    run(tmp_path / "killed", config=config)
    assert_same_run(tmp_path / "whole", tmp_path / "killed")
    first = first_weights(jax.random.split(jax.random.key(config.seed))[0])["params"]
    trained = load_checkpoint(tmp_path / "whole" / "model").variables["params"]
    equal = jax.tree.map(np.array_equal, first, trained)
    moved = {name for name, part in equal.items() if not all(jax.tree.leaves(part))}
    assert moved == {"norm", "head_norm", "head"}
