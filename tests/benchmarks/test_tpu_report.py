"""Costs of a training step, compiled for devices that are there and for TPUs that are not."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from benchmarks import tpu_report
from benchmarks.tpu_footprint import (
    Footprint,
    compile_footprint,
    expected_limit,
    find_collectives,
    largest_batch,
)
from sat_jax.config import ModelConfig
from sat_jax.errors import SatError
from sat_jax.runtime.sharding import make_mesh
from sat_jax.training.config import OptimizerConfig, TrainConfig

ROOT = Path(__file__).parents[2]
PROGRAM = """\
HloModule step
%body (x: f32[4,2]) -> f32[4,2] {
  %ar = (f32[4,2]{1,0}, bf16[3]{0}) all-reduce(%a, %b), replica_groups={{0,1}}, to_apply=%add
  %start = f32[8]{0} all-gather-start(%c), dimensions={0}
  ROOT %done = f32[8]{0} all-gather-done(%start)
  %again = pred[] all-reduce(%flag), to_apply=%or
  %name-of-all-reduce.1 = f32[100]{0} add(%x, %x)
}
"""


# Where `make` puts the compiler for TPUs, or among the other packages.
LIBTPU = Path(sys.prefix) / "libtpu"
needs_libtpu = pytest.mark.skipif(
    not LIBTPU.is_dir() and importlib.util.find_spec("libtpu") is None, reason="needs libtpu"
)


def run_report(*flags):
    command = [sys.executable, "-m", "benchmarks.tpu_report", *flags]
    # The compiler for TPUs has other flags than the one for CPUs.
    env = os.environ | {"PYTHONPATH": str(LIBTPU), "XLA_FLAGS": ""}
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=500)


def test_collectives_are_counted_with_their_results():
    found = find_collectives(PROGRAM)
    assert {kind: (one.count, one.num_bytes) for kind, one in found.items()} == {
        "all-reduce": (2, 4 * 2 * 4 + 3 * 2 + 1),
        "all-gather": (1, 8 * 4),
    }


@pytest.mark.parametrize("start", [1, 8, 64])
@pytest.mark.parametrize("limit", [1, 2, 7, 64, 1000])
def test_the_largest_batch_is_bracketed(start, limit):
    tried = []

    def try_batch(batch_size):
        tried.append(batch_size)
        fits = batch_size <= 4 * limit
        return _footprint(batch_size) if fits else None

    fits, fails = largest_batch(try_batch, unit=4, start=start)
    assert fits.batch_size <= 4 * limit < fails
    assert fails - fits.batch_size <= max(4, fits.batch_size / 8)
    assert {fits.batch_size, fails} <= set(tried), "both were compiled"
    assert all(batch_size > 0 and batch_size % 4 == 0 for batch_size in tried)
    assert len(tried) == len(set(tried)) <= 20


def test_the_limit_is_on_a_line_through_two_footprints():
    small, large = _footprint(10), _footprint(30)
    assert expected_limit(small, large, 95) == 95  # Each example of these takes one byte.


def test_a_smallest_batch_that_does_not_fit_is_an_error():
    with pytest.raises(SatError, match="batch of 4"):
        largest_batch(lambda batch_size: None, unit=4, start=64)


def test_state_and_batch_are_the_arguments_of_a_step():
    model = ModelConfig(width=64, depth=1, target_length=32, cache_length=32, num_classes=3)
    config = TrainConfig(model=model, optimizer=OptimizerConfig(learning_rate=1e-3), num_steps=5)
    small, large = (
        compile_footprint(config, make_mesh(jax.devices()[:1]), batch_size=size, num_samples=5_000)
        for size in (2, 6)
    )
    assert large.argument_bytes - small.argument_bytes == 4 * (5_000 + 3) * 4
    assert large.flops > 2 * small.flops
    assert large.peak_bytes > small.peak_bytes


@pytest.mark.slow
@needs_libtpu
def test_a_small_run_on_a_tpu_that_is_not_there(tmp_path):
    file = tmp_path / "report.json"
    run = ("--topologies=v5e:2x2", "--batch=8", "--config=configs/sat.py:SAT_XS_2s,debug")
    done = run_report(*run, "--dtypes=bfloat16", f"--json={file}")
    assert done.returncode == 0, done.stderr
    whole, spread = json.loads(file.read_text())
    assert (whole["chips"], whole["fsdp"], spread["fsdp"]) == (4, "off", "on")
    # Weights and both moments lie on every chip, or a quarter of most of them.
    assert spread["argument_bytes"] < 0.75 * whole["argument_bytes"]


def test_an_unknown_precision_is_refused(capsys):
    with pytest.raises(SystemExit) as ended:
        tpu_report.PROGRAM.parse(["tpu_report", "--dtypes=int8"])
    assert ended.value.code == 2 and "int8" in capsys.readouterr().err


@needs_libtpu
def test_an_unknown_tpu_is_an_error_of_one_line():
    done = run_report("--topologies=v5e:3x7")
    (line,) = done.stderr.strip().splitlines()
    assert done.returncode == 1 and "v5e:3x7" in line


def _footprint(batch_size):
    return Footprint(
        batch_size=batch_size,
        argument_bytes=0,
        output_bytes=0,
        temporary_bytes=0,
        peak_bytes=batch_size,
        flops=0.0,
        collectives={},
    )
