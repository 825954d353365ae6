"""The same as `sat-jax download`."""

import sys

from sat_jax.__main__ import run_command

if __name__ == "__main__":
    run_command("download", "sat-jax download", sys.argv[1:])
