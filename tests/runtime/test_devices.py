import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from sat_jax.runtime.devices import MIN_EXAMPLES_PER_CORE, num_cpu_devices

ROOT = Path(__file__).parents[2]

COUNT_DEVICES = """
import sys
from sat_jax.runtime import devices
assert "jax" not in sys.modules
devices.usable_cores = lambda: 3
devices.use_cores_as_devices(int(sys.argv[1]))
import jax
print(jax.device_count(), float(jax.jit(lambda x: x @ x)(jax.numpy.ones(3))))
"""


def count_devices(batch_size: int, **environment: str) -> int:
    env = {
        name: value
        for name, value in os.environ.items()
        if name not in ("XLA_FLAGS", "JAX_NUM_CPU_DEVICES")
    }
    done = subprocess.run(
        [sys.executable, "-c", COUNT_DEVICES, str(batch_size)],
        env=env | {"JAX_PLATFORMS": "cpu"} | environment,
        cwd=ROOT,
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
        allowed = [
            share for share in shares if share.is_integer() and share >= MIN_EXAMPLES_PER_CORE
        ]
        expected = batch_size / min(allowed) if allowed else 1
        assert num_cpu_devices(batch_size, cores) == expected, (batch_size, cores)


@pytest.mark.parametrize(
    ("batch_size", "environment", "count"),
    [
        (16, {"XLA_FLAGS": "--xla_cpu_enable_fast_math=false"}, 2),
        (24, {"XLA_FLAGS": "--xla_force_host_platform_device_count=1"}, 1),
        (24, {"JAX_NUM_CPU_DEVICES": "2"}, 2),
    ],
)
def test_cores_become_devices_unless_the_user_chose(batch_size, environment, count):
    assert count_devices(batch_size, **environment) == count


def test_flags_in_a_file_stay(tmp_path):
    (tmp_path / "flags").write_text("--xla_force_host_platform_device_count=4")
    assert count_devices(24, XLA_FLAGS=str(tmp_path / "flags")) == 4


@pytest.mark.parametrize("flags", [[], ["--random_weights"]])
def test_a_missing_device_is_reported_as_such(flags, tmp_path):
    environment = {"JAX_PLATFORMS": "nothing_such", "HOME": str(tmp_path)}
    command = [sys.executable, "infer.py", *flags, "examples/choir.flac"]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith("infer.py: ") and done.stderr.count("\n") == 1
    assert "JAX_PLATFORMS=nothing_such" in done.stderr


MEASURE_MEMORY = """
import ctypes, os, sys
from sat_jax.runtime.devices import keep_freed_memory
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGESIZE") >> 20
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
if len(sys.argv) == 1:
    keep_freed_memory()
before = resident()
array = libc.malloc(64 << 20)
ctypes.memset(array, 1, 64 << 20)
libc.free(array)
print(resident() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the settings are glibc's")
@pytest.mark.parametrize(
    ("arguments", "environment", "kept"),
    [([], {}, True), (["off"], {}, False), ([], {"GLIBC_TUNABLES": ""}, False)],
)
def test_freed_memory_is_kept_unless_the_user_chose(arguments, environment, kept):
    env = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"}
    command = [sys.executable, "-c", MEASURE_MEMORY, *arguments]
    done = subprocess.run(command, env=env | environment, cwd=ROOT, capture_output=True, check=True)
    assert (int(done.stdout) > 32) == kept, "of 64 MB"
