"""Trains a model: the same as `sat-jax train`."""

import sys

from sat_jax.__main__ import run_command

if __name__ == "__main__":
    run_command("train", "train.py", sys.argv[1:])
