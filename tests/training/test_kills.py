"""Runs that SIGKILL ends at random moments make the same model as one that was never stopped."""

import dataclasses
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.support.small_run import CONFIG, assert_same_run, run, validation

ROOT = Path(__file__).parents[2]
KILLS = 25
LONGER = dataclasses.replace(CONFIG, num_steps=60, checkpoint_every=2, evaluate_every=3)


def start(workdir: Path) -> subprocess.Popen:
    """Starts a program that trains, and waits until it has imported everything."""
    command = [sys.executable, "-m", "tests.training.test_kills", str(workdir)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    return process


def finish(process: subprocess.Popen) -> None:
    """Waits for a program that succeeds."""
    process.communicate(timeout=600)
    assert process.returncode == 0


@pytest.mark.slow
def test_kills_at_random_moments_cost_nothing(tmp_path):
    process = start(tmp_path / "whole")
    started = time.monotonic()
    finish(process)
    duration = time.monotonic() - started
    rng, kills, runs = np.random.default_rng(0), 0, 0
    while kills < KILLS:
        workdir = tmp_path / f"killed {runs}"
        runs += 1
        while not (workdir / "model").exists():
            process = start(workdir)
            # Each start has to load a checkpoint first, so a kill rarely comes before a step.
            time.sleep(rng.uniform(0, duration / 2))
            if process.poll() is None and kills < KILLS:
                kills += 1
                process.kill()
                process.communicate()
            else:
                finish(process)
        assert_same_run(tmp_path / "whole", workdir)
    print(f"{kills} kills of {runs} runs")


if __name__ == "__main__":
    print("ready", flush=True)
    run(Path(sys.argv[1]), config=LONGER, validation=validation)
