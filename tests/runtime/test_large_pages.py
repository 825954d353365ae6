import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from sat_jax.runtime.large_pages import TUNABLES

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="programs restart on Linux only")

SCRIPT = """
import os, sys
from sat_jax.runtime.large_pages import restart_in_large_pages
print(os.getpid(), os.environ.get("GLIBC_TUNABLES"), sys.argv[1:], sys.flags.utf8_mode, flush=True)
restart_in_large_pages()
print("begun")
"""


def run(tmp_path: Path, **environment: str) -> list[list[str]]:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    env = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"}
    done = subprocess.run(
        [sys.executable, "-X", "utf8", script, "--flag", "two words"],
        env=env | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert not done.stderr
    return [line.split(maxsplit=2) for line in done.stdout.splitlines()]


def test_a_program_begins_again_once_with_its_arguments(tmp_path: Path) -> None:
    before, after, begun = run(tmp_path)
    what = "['--flag', 'two words'] 1"
    assert before[1:] == ["None", what]
    assert after == [before[0], TUNABLES, what], "the same process"
    assert begun == ["begun"]


def test_settings_of_the_user_stay(tmp_path: Path) -> None:
    only, begun = run(tmp_path, GLIBC_TUNABLES="glibc.malloc.check=0")
    assert only[1] == "glibc.malloc.check=0"
    assert begun == ["begun"]


ALLOCATE = """
import ctypes, resource, threading
libc = ctypes.CDLL(None)
libc.prctl(41, 1, 0, 0, 0)  # No large pages, which some systems give to all: pages can be counted.
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
def fill():
    for size in (100 << 20, 1 << 20):
        array = libc.malloc(size)
        ctypes.memset(array, 1, size)
        libc.free(array)
fill()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for run in (fill, lambda: (thread := threading.Thread(target=fill)).start() or thread.join()):
    run()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the settings are glibc's")
def test_memory_is_kept_for_all_threads() -> None:
    faults = {
        tunables: int(
            subprocess.run(
                [sys.executable, "-c", ALLOCATE],
                env=os.environ | {"GLIBC_TUNABLES": tunables},
                capture_output=True,
                check=True,
            ).stdout
        )
        for tunables in ("", TUNABLES)
    }
    assert faults[""] > 1_000, "two times 100 MB"
    assert faults[TUNABLES] < 200, "a thread's own memory at most"
