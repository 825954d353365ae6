"""The same as `sat-jax verify`."""

import sys

from sat_jax.__main__ import run_command

if __name__ == "__main__":
    run_command("verify", "sat-jax verify", sys.argv[1:])
