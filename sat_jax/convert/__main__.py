"""The same as `sat-jax convert`."""

import sys

from sat_jax.__main__ import run_command

if __name__ == "__main__":
    run_command("convert", "sat-jax convert", sys.argv[1:])
