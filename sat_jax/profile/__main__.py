"""The same as `sat-jax profile`."""

import sys

from sat_jax.__main__ import run_command

if __name__ == "__main__":
    run_command("profile", "sat-jax profile", sys.argv[1:])
