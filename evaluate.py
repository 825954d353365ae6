"""Measures models on labelled clips: the same as `sat-jax evaluate`."""

import sys

from sat_jax.__main__ import run_command

if __name__ == "__main__":
    run_command("evaluate", "evaluate.py", sys.argv[1:])
