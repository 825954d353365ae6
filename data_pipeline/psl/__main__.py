"""The same as `sat-jax psl`."""

import sys

from sat_jax.__main__ import run_command

if __name__ == "__main__":
    run_command("psl", "sat-jax psl", sys.argv[1:])
