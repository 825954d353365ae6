import os
import subprocess
import sys
from pathlib import Path

import pytest

from sat_jax.large_pages import TUNABLES

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="glibc is of Linux")

SCRIPT = """
import os, sys
from sat_jax.large_pages import restart_in_large_pages
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
