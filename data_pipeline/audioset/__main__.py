"""The same as `sat-jax prepare`."""

import sys

from sat_jax.__main__ import run_command

if __name__ == "__main__":
    run_command("prepare", "sat-jax prepare", sys.argv[1:])
