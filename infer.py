"""Tags recordings and live sound: the same as `sat-jax tag`."""

import sys

from sat_jax.__main__ import run_command

if __name__ == "__main__":
    run_command("tag", "infer.py", sys.argv[1:])
