import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("more", [[], ["--random_weights"]])
def test_a_device_that_is_not_there_is_no_damage(more, tmp_path):
    environment = {"JAX_PLATFORMS": "nothing_such", "HOME": str(tmp_path)}
    command = [sys.executable, "infer.py", *more, "examples/choir.flac"]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith(
        "infer.py: JAX finds no device such as JAX_PLATFORMS=nothing_such"
    )
    assert done.stderr.count("\n") == 1
