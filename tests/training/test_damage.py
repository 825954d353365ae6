"""Damaged files in a workdir: the run goes on from what is good, and keeps what is not."""

import gc
import itertools
import re
import shutil
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sat_jax.errors import SatError
from sat_jax.training.checkpoints import BestModels
from sat_jax.training.checksum import checksum
from sat_jax.training.step_folder import load_tree
from sat_jax.weights.checkpoint import load_checkpoint
from tests.support.small_run import (
    Killed,
    assert_same_run,
    endless,
    kill,
    run,
    stopped_by,
    validation,
)


@pytest.fixture(scope="session")
def stopped(tmp_path_factory):
    """Returns the workdir of a run with checkpoints 2, 3 and 4 and best models 2 and 4."""
    workdir = tmp_path_factory.mktemp("stopped")
    with pytest.raises(Killed):
        run(workdir, stopped_by(kill, 5), validation=validation)
    return workdir


@pytest.fixture
def workdir(stopped, tmp_path):
    return shutil.copytree(stopped, tmp_path / "run")


def largest_file(folder):
    return max(
        (path for path in folder.rglob("*") if path.is_file()), key=lambda x: x.stat().st_size
    )


def empty(path):
    path.write_bytes(b"")


def remove(path):
    path.unlink()


def tear(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip_a_bit(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 16
    path.write_bytes(data)


def remove_values(step):
    remove(largest_file(step))


def flip_a_value(step):
    flip_a_bit(largest_file(step))


def empty_metadata(step):
    empty(step / "default" / "_METADATA")


def remove_index(step):
    remove(step / "default" / "manifest.ocdbt")


def remove_everything(step):
    shutil.rmtree(step)
    step.mkdir()


DAMAGES = [flip_a_value, remove_values, empty_metadata, remove_index, remove_everything]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_set_aside(workdir, validated, capfd, damage):
    damage(workdir / "checkpoints" / "4")
    starts = []
    run(workdir, lambda at: starts.append(at) or endless(at), validation=validation)
    assert starts == [3]
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1
    assert str(workdir / "checkpoints" / "4") in lines[0] and "4.damaged.1" in lines[0]
    assert (workdir / "checkpoints" / "4.damaged.1").is_dir()
    assert_same_run(validated, workdir)


def test_two_damaged_checkpoints_are_set_aside(workdir, validated, capfd):
    for step in ("3", "4"):
        flip_a_value(workdir / "checkpoints" / step)
    run(workdir, validation=validation)
    assert len(capfd.readouterr().err.splitlines()) == 2
    assert_same_run(validated, workdir)


def test_orbax_logs_nothing_of_its_own(workdir, validated, caplog):
    for metadata in workdir.glob("*/*/_CHECKPOINT_METADATA"):
        empty(metadata)
    run(workdir, validation=validation)
    assert caplog.messages == []
    assert_same_run(validated, workdir)


def test_a_run_without_a_good_checkpoint_does_not_start_again(workdir):
    before = sorted((workdir / "checkpoints").iterdir())
    for step in before:
        flip_a_value(step)
    with pytest.raises(SatError, match=re.escape(str(workdir / "checkpoints"))):
        run(workdir, validation=validation)
    assert sorted((workdir / "checkpoints").iterdir()) == before
    assert (workdir / "log.jsonl").read_text().count("\n") > 4


def change_score(step):
    path = step / "metrics" / "metrics"
    path.write_text(path.read_text().replace("0.", "0.9"))


@pytest.mark.parametrize("damage", [*DAMAGES, change_score])
def test_a_damaged_best_model_is_left_out(tmp_path, capfd, damage):
    rng = np.random.default_rng(0)
    models = [{"params": {"kernel": rng.standard_normal((64, 64), np.float32)}} for _ in range(3)]
    with BestModels(tmp_path / "best", keep=3) as best:
        for step, model in enumerate(models):
            best.save(step, model, 0.1 * step)
    damage(tmp_path / "best" / "1")
    with BestModels(tmp_path / "best", keep=3) as best:
        average = best.average(jax.tree.map(jnp.asarray, models[0]))
    (line,) = capfd.readouterr().err.splitlines()
    assert str(tmp_path / "best" / "1") in line
    assert (tmp_path / "best" / "1.damaged.1").is_dir()
    kernels = [model["params"]["kernel"] for model in models]
    np.testing.assert_allclose(
        average["params"]["kernel"], (kernels[0] + kernels[2]) / 2, atol=1e-7
    )


def test_reading_a_damaged_step_leaves_nothing_behind(tmp_path, monkeypatch, caplog):
    model = {
        str(i): np.random.default_rng(i).standard_normal((99, 99), np.float32) for i in range(40)
    }
    with BestModels(tmp_path, keep=1) as best:
        best.save(1, model, 0.5)
    for path in (tmp_path / "1" / "default" / "d").iterdir():
        tear(path)
    late = []
    monkeypatch.setattr(sys, "unraisablehook", late.append)
    with pytest.raises(SatError):
        load_tree(tmp_path / "1", jax.eval_shape(lambda: jax.tree.map(jnp.asarray, model)))
    gc.collect()
    assert (late, caplog.messages) == ([], [])


def test_without_a_good_best_model_the_last_model_is_exported(workdir, whole):
    """The model of a run without validation is its last one."""
    for step in (workdir / "best").iterdir():
        change_score(step)
    run(workdir, stopped_by(kill, 6))
    last, exported = (load_checkpoint(x / "model").variables for x in (whole, workdir))
    jax.tree.map(np.testing.assert_array_equal, last, exported)


def without_config(path):
    path.write_text('{"config": 5}')


@pytest.mark.parametrize("damage", [empty, tear, without_config])
def test_a_damaged_config_is_set_aside(workdir, validated, capfd, damage):
    damage(workdir / "config.json")
    damaged = (workdir / "config.json").read_bytes()
    run(workdir, validation=validation)
    (line,) = capfd.readouterr().err.splitlines()
    assert str(workdir / "config.json") in line
    assert (workdir / "config.json.damaged.1").read_bytes() == damaged
    assert (workdir / "config.json").read_bytes() == (validated / "config.json").read_bytes()
    assert_same_run(validated, workdir)


def test_a_missing_config_is_told(workdir, validated, capfd):
    remove(workdir / "config.json")
    run(workdir, validation=validation)
    (line,) = capfd.readouterr().err.splitlines()
    assert str(workdir / "config.json") in line
    assert (workdir / "config.json").read_bytes() == (validated / "config.json").read_bytes()
    assert_same_run(validated, workdir)


ENDS = {
    "half a line": b'{"step": 5, "lo',
    "zeros": bytes(4096),
    "no text": b"\xff\xfe\n",
    "too deep": b"[" * 100_000,
    "no step": b'{"loss": 1}\n[]\n',
}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS.keys())
def test_a_torn_log_is_set_aside(workdir, validated, capfd, end):
    with (workdir / "log.jsonl").open("ab") as file:
        file.write(end)
    torn = (workdir / "log.jsonl").read_bytes()
    run(workdir, validation=validation)
    (line,) = capfd.readouterr().err.splitlines()
    assert str(workdir / "log.jsonl") in line
    assert (workdir / "log.jsonl.damaged.1").read_bytes() == torn
    assert_same_run(validated, workdir)


@pytest.mark.slow
@pytest.mark.parametrize("damage", [empty, remove, tear, flip_a_bit])
def test_no_damaged_file_goes_unnoticed(stopped, validated, tmp_path, capfd, damage):
    """Any file in turn: the model is that of the whole run, or a line names the damage."""
    folders = ["checkpoints/4", "best/2"]
    files = [path for folder in folders for path in (stopped / folder).rglob("*")]
    files = [path.relative_to(stopped) for path in files if path.is_file()]
    files += [Path("config.json"), Path("log.jsonl")]
    assert len(files) > 20
    for number, file in enumerate(files):
        workdir = shutil.copytree(stopped, tmp_path / str(number))
        damage(workdir / file)
        try:
            run(workdir, validation=validation)
        except SatError as error:  # A flipped bit can make another config.
            assert file.name == "config.json" and str(workdir) in str(error)
            continue
        told = capfd.readouterr().err
        assert len(told.splitlines()) <= 1, told
        if file.name == "log.jsonl":  # Lines that are lost stay lost.
            shutil.copy(validated / file, workdir)
        if f"{workdir / 'best' / '2'} is damaged" in told:
            load_checkpoint(workdir / "model")
        else:
            assert_same_run(validated, workdir)


def test_steps_of_older_programs_are_read_unchecked(workdir, validated):
    for metadata in workdir.rglob("_METADATA"):
        text = metadata.read_text()
        metadata.write_text(
            re.sub(r'"custom_metadata": \{[^}]*\}', '"custom_metadata": null', text)
        )
    run(workdir, validation=validation)
    assert_same_run(validated, workdir)


def test_every_flipped_bit_changes_the_checksum():
    tree = {"a": np.arange(3, dtype=np.float32), "b": np.array(7, np.int32)}
    right = checksum(tree)
    for name, array in tree.items():
        for place, bit in itertools.product(range(array.nbytes), range(8)):
            data = bytearray(array.tobytes())
            data[place] ^= 1 << bit
            other = np.frombuffer(data, array.dtype).reshape(array.shape)
            assert checksum(tree | {name: other}) != right


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int32"])
def test_other_values_and_places_change_the_checksum(dtype):
    array = jnp.asarray(1 + np.arange(24).reshape(4, 6), dtype)
    others = [-array, array[::-1], array[:, ::-1], jnp.roll(array, 1), 0 * array]
    others += [array.at[:2, 0].multiply(-1)]
    seen = [checksum({"x": x}) for x in [array, *others]] + [checksum({"y": array})]
    assert len(set(seen)) == len(seen)
    assert checksum({"x": np.asarray(array)}) == seen[0]
