"""Training with many devices and processes, compared with one process."""

import json
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from sat_jax.weights.checkpoint import load_checkpoint
from tests.training.multi_device import run

PROGRAM = Path(__file__).parent / "multi_device.py"
pytestmark = pytest.mark.xdist_group("many devices")


def start(workdir, *flags):
    command = [sys.executable, PROGRAM, workdir, *map(str, flags)]
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finish(process):
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return out


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start_all(workdir, *flags, of=2, last=()):
    """Starts processes that share eight devices, joined over loopback; the last has more flags."""
    shared = ["--devices", 8 // of, "--of", of, "--port", free_port(), *flags]
    others = [start(workdir, *shared, "--process", index) for index in range(of - 1)]
    return [*others, start(workdir, *shared, "--process", of - 1, *last)]


def wait_for(process, word):
    assert any(word in line for line in process.stdout), process.stderr.read()


def curve(workdir):
    """Returns loss and gradient norm of every step, and mAP of every validation."""
    lines = [json.loads(line) for line in (workdir / "log.jsonl").read_text().splitlines()]
    steps = {x["step"]: (x["loss"], x["grad_norm"]) for x in lines if "loss" in x}
    measured = {x["step"]: x["validation"] for x in lines if "validation" in x}
    assert list(steps) == list(range(1, 7)) and list(measured) == [3, 6]
    assert {x["clips"] for x in measured.values()} == {27}
    return np.array(list(steps.values())), np.array([x["mAP"] for x in measured.values()])


def assert_same_run(workdir, reference):
    (steps, precision), (other_steps, other_precision) = curve(workdir), curve(reference)
    np.testing.assert_allclose(steps, other_steps, rtol=1e-5)
    # Rounding can swap two clips of nearly the same score, which moves mAP by some 1e-3. Scores of
    # other clips would move it by some 1e-1.
    np.testing.assert_allclose(precision, other_precision, atol=1e-2)
    models = [load_checkpoint(folder / "model").variables for folder in (workdir, reference)]
    # Adam divides a gradient by its own size, so rounding errors of tiny gradients show in full.
    # Six steps of 1e-3 can move a weight by 6e-3.
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-4), *models)


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """Returns the workdir of a run in this process."""
    workdir = tmp_path_factory.mktemp("one")
    assert run(workdir).step == 6
    return workdir


@pytest.mark.parametrize("flags", [[], pytest.param(["--fsdp"], marks=pytest.mark.slow)])
def test_eight_devices_learn_what_one_learns(flags, one, tmp_path):
    assert '"devices": 8' in finish(start(tmp_path, "--devices", 8, *flags))
    assert_same_run(tmp_path, one)


@pytest.mark.slow
def test_a_process_that_dies_ends_the_job_and_one_process_goes_on(one, tmp_path):
    first, second = start_all(tmp_path, last=["--hold-at", 3])
    wait_for(second, "holding")
    second.kill()
    second.communicate()
    _, message = first.communicate(timeout=120)
    assert first.returncode == 1
    assert message.splitlines()[-1].startswith("error: another process has stopped")
    assert "Traceback" not in message
    assert (tmp_path / "checkpoints" / "2").is_dir() and not (tmp_path / "model").exists()
    assert '"devices": 1' in finish(start(tmp_path))
    assert_same_run(tmp_path, one)


@pytest.mark.slow
def test_sigterm_to_one_process_stops_both_and_both_go_on(one, tmp_path):
    processes = start_all(tmp_path, "--fsdp", last=["--hold-at", 2])
    wait_for(processes[1], "holding")
    processes[0].send_signal(signal.SIGTERM)
    print(file=processes[1].stdin, flush=True)
    outs = [finish(process) for process in processes]
    stopped_at = {json.loads(out.splitlines()[-1])["step"] for out in outs}
    assert len(stopped_at) == 1 and not (tmp_path / "model").exists()
    assert (tmp_path / "checkpoints" / str(*stopped_at)).is_dir()
    for process in start_all(tmp_path, "--fsdp"):
        assert '"step": 6' in finish(process)
    assert_same_run(tmp_path, one)


@pytest.mark.slow
@pytest.mark.parametrize("flags", [[], ["--fsdp"]], ids=["replicated", "fsdp"])
@pytest.mark.parametrize("of", [2, 4])
def test_kills_of_any_process_cost_nothing(one, tmp_path, of, flags):
    """Each of them is killed once, at a random moment; the others end by themselves."""
    rng = np.random.default_rng(of)
    log = tmp_path / "log.jsonl"
    for victim in rng.permutation(of):
        before = log.stat().st_ino if log.exists() else None
        processes = start_all(tmp_path, *flags, of=of)
        # Each start writes a new log once it has read its checkpoint.
        while processes[victim].poll() is None and is_unchanged(log, before):
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 3))
        processes[victim].kill()
        for process in processes:
            process.communicate(timeout=300)
    for process in start_all(tmp_path, *flags, of=of):
        assert '"step": 6' in finish(process)
    assert_same_run(tmp_path, one)


def is_unchanged(path, inode):
    return not path.exists() or path.stat().st_ino == inode


@pytest.mark.slow
def test_damage_that_one_process_finds_sends_all_back(one, tmp_path):
    workdir = shutil.copytree(one, tmp_path / "run")
    shutil.rmtree(workdir / "model")
    processes = start_all(workdir, last=["--unreadable", 6])
    messages = [process.communicate(timeout=300)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], messages
    assert "another process can't read it" in messages[0] and "from step 4" in messages[0]
    assert (workdir / "checkpoints" / "6.damaged.1").is_dir()
    assert_same_run(workdir, one)


@pytest.mark.slow
def test_a_full_disk_of_one_process_ends_all(tmp_path):
    processes = start_all(tmp_path, last=["--file-size", 10_000])
    messages = [process.communicate(timeout=300)[1] for process in processes]
    assert processes[-1].returncode == 1 and processes[0].returncode != 0
    assert messages[-1].startswith("error: cannot write") and len(messages[-1].splitlines()) == 1


@pytest.mark.parametrize("missing", [0, 1])
def test_a_process_that_never_comes_ends_the_wait(tmp_path, missing):
    flags = ["--of", 2, "--port", free_port(), "--process", 1 - missing, "--join-seconds", 1]
    waiting = start(tmp_path, *flags)
    _, message = waiting.communicate(timeout=120)
    assert waiting.returncode == 1
    assert message.splitlines()[-1].startswith("error: the processes can't find each other")
    assert "Traceback" not in message
