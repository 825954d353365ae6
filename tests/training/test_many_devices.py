"""Training with many devices and processes, compared with one process."""

import json
import signal
import socket
import subprocess
import sys
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


def start_two(workdir, *flags, second=()):
    """Starts two processes of four devices each, joined over loopback."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = ["--devices", 4, "--of", 2, "--port", port, *flags]
    return (
        start(workdir, *shared, "--process", 0),
        start(workdir, *shared, "--process", 1, *second),
    )


def wait_for(process, word):
    assert any(word in line for line in process.stdout), process.stderr.read()


def curve(workdir):
    """Returns loss and gradient norm of every step, and mAP of every validation."""
    lines = [json.loads(line) for line in (workdir / "log.jsonl").read_text().splitlines()]
    steps = {x["step"]: (x["loss"], x["grad_norm"]) for x in lines if "loss" in x}
    measured = {x["step"]: x["validation"]["mAP"] for x in lines if "validation" in x}
    assert list(steps) == list(range(1, 7)) and list(measured) == [3, 6]
    return np.array(list(steps.values())), np.array(list(measured.values()))


def assert_same_run(workdir, reference):
    for ours, theirs in zip(curve(workdir), curve(reference), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)
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
    first, second = start_two(tmp_path, second=["--hold-at", 3])
    wait_for(second, "holding")
    second.kill()
    second.communicate()
    _, message = first.communicate(timeout=120)
    assert first.returncode != 0
    assert "another task died" in message or "heartbeat" in message
    assert (tmp_path / "checkpoints" / "2").is_dir() and not (tmp_path / "model").exists()
    assert '"devices": 1' in finish(start(tmp_path))
    assert_same_run(tmp_path, one)


@pytest.mark.slow
def test_sigterm_to_one_process_stops_both_and_both_go_on(one, tmp_path):
    processes = start_two(tmp_path, "--fsdp", second=["--hold-at", 2])
    wait_for(processes[1], "holding")
    processes[0].send_signal(signal.SIGTERM)
    print(file=processes[1].stdin, flush=True)
    outs = [finish(process) for process in processes]
    stopped_at = {json.loads(out.splitlines()[-1])["step"] for out in outs}
    assert len(stopped_at) == 1 and not (tmp_path / "model").exists()
    assert (tmp_path / "checkpoints" / str(*stopped_at)).is_dir()
    for process in start_two(tmp_path, "--fsdp"):
        assert '"step": 6' in finish(process)
    assert_same_run(tmp_path, one)
