import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from sat_jax.errors import SatError
from sat_jax.runtime import devices
from sat_jax.runtime.devices import MIN_EXAMPLES_PER_CORE, num_cpu_devices

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("cores", [1, 2, 3, 8, 64])
def test_devices_share_batches_evenly_and_get_enough(cores):
    for batch_size in range(1, 200):
        shares = [batch_size / count for count in range(2, cores + 1)]
        allowed = [
            share for share in shares if share.is_integer() and share >= MIN_EXAMPLES_PER_CORE
        ]
        expected = batch_size / min(allowed) if allowed else 1
        assert num_cpu_devices(batch_size, cores) == expected, (batch_size, cores)


COUNT_DEVICES = """
import sys
from sat_jax.runtime import devices
assert "jax" not in sys.modules
devices.usable_cores = lambda: 3
devices.use_cores_as_devices(16)
import jax
print(jax.device_count(), float(jax.jit(lambda x: x @ x)(jax.numpy.ones(3))))
"""


def test_jax_sees_the_devices():
    env = {name: value for name, value in os.environ.items() if name != "JAX_NUM_CPU_DEVICES"}
    done = subprocess.run(
        [sys.executable, "-c", COUNT_DEVICES],
        env=env | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_cpu_enable_fast_math=false"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["2", "3.0"]


@pytest.mark.parametrize(
    ("batch_size", "environment"),
    [
        (24, {"XLA_FLAGS": "--xla_force_host_platform_device_count=1"}),
        (24, {"XLA_FLAGS": "/file/with/flags"}),
        (24, {"JAX_NUM_CPU_DEVICES": "2", "XLA_FLAGS": ""}),
        (9, {"XLA_FLAGS": ""}),
    ],
)
def test_devices_of_the_user_stay(batch_size, environment, monkeypatch):
    monkeypatch.setattr(devices, "usable_cores", lambda: 3)
    monkeypatch.delenv("JAX_NUM_CPU_DEVICES", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    devices.use_cores_as_devices(batch_size)
    assert os.environ["XLA_FLAGS"] == environment["XLA_FLAGS"]


@pytest.mark.parametrize("platform_name", [None, "nothing_such"])
def test_a_missing_device_is_named(platform_name, monkeypatch):
    def fail():
        raise RuntimeError("first line\nsecond line")

    monkeypatch.setattr("jax.devices", fail)
    monkeypatch.delenv("JAX_PLATFORMS")
    if platform_name:
        monkeypatch.setenv("JAX_PLATFORMS", platform_name)
    with pytest.raises(SatError, match=platform_name) as caught:
        devices.check_devices()
    assert "first line" in str(caught.value) and "second line" not in str(caught.value)


def test_a_missing_device_is_not_taken_for_a_damaged_model(tmp_path):
    environment = {"JAX_PLATFORMS": "nothing_such", "HOME": str(tmp_path)}
    command = [sys.executable, "infer.py", "examples/choir.flac"]
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
