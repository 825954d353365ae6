import os
import subprocess
import sys
from pathlib import Path

import pytest

from sat_jax.runtime.cpu_devices import SMALLEST_SHARE, device_count

SCRIPT = """
import os, sys
from sat_jax.runtime import cpu_devices
cpu_devices.usable_cores = lambda: 3
cpu_devices.make_cores_devices(int(sys.argv[1]))
import jax
print(jax.device_count(), float(jax.jit(lambda x: x @ x)(jax.numpy.ones(3))))
"""


def devices(batch_size: int, **environment: str) -> int:
    env = {
        name: value
        for name, value in os.environ.items()
        if name not in ("XLA_FLAGS", "JAX_NUM_CPU_DEVICES")
    }
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(batch_size)],
        env=env | {"JAX_PLATFORMS": "cpu"} | environment,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    count, product = done.stdout.split()
    assert float(product) == 3.0
    return int(count)


@pytest.mark.parametrize("cores", [1, 2, 3, 8, 64])
def test_devices_share_batches_evenly_and_get_enough(cores):
    for batch_size in range(1, 200):
        shares = [batch_size / count for count in range(2, cores + 1)]
        allowed = [share for share in shares if share.is_integer() and share >= SMALLEST_SHARE]
        expected = batch_size / min(allowed) if allowed else 1
        assert device_count(batch_size, cores) == expected, (batch_size, cores)


def test_jax_sees_cores_as_devices_unless_told_otherwise(tmp_path):
    assert devices(16, XLA_FLAGS="--xla_cpu_enable_fast_math=false") == 2
    assert devices(24, XLA_FLAGS="--xla_force_host_platform_device_count=1") == 1
    assert devices(24, JAX_NUM_CPU_DEVICES="2") == 2
    assert devices(9) == 1
    (tmp_path / "flags").write_text("--xla_force_host_platform_device_count=4")
    assert devices(24, XLA_FLAGS=str(tmp_path / "flags")) == 4
