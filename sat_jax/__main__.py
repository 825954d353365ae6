"""The command sat-jax: runs one of its sub-commands.

sat-jax COMMAND [arguments] [flags]
"""

import importlib
import sys
from collections.abc import Sequence
from typing import NoReturn

COMMANDS = {
    "tag": "tag recordings and live sound",
    "listen": "tag a microphone, a camera or a stream, live",
    "serve": "tag live sound of many microphones, cameras and clients",
    "archive": "tag an archive of recordings on many machines",
    "evaluate": "measure models on labelled clips",
    "train": "train a model, or resume a run",
    "convert": "convert weights between PyTorch files and checkpoint folders",
    "export": "export a model for devices without JAX",
    "models": "list models and their weights",
    "profile": "count and measure what a streaming step costs",
    "psl": "make pseudo strong labels with a teacher",
    "download": "fetch AudioSet's lists and clips",
    "prepare": "build AudioSet as a TFDS dataset",
    "verify": "check published models against the scores of their authors",
}


def main() -> NoReturn:
    """Runs the sub-command that the command line names, and ends the process."""
    first, *rest = sys.argv[1:] or ["--help"]
    if first in COMMANDS:
        run_command(first, f"sat-jax {first}", rest)
    if first == "--version":
        from importlib.metadata import version

        print(f"sat-jax {version('sat-jax')}")
    elif first in ("--help", "-h", "help"):
        print(_help())
    else:
        kind = "unknown flag" if first.startswith("-") else "no command"
        print(f"sat-jax: {kind} {first}; see sat-jax --help", file=sys.stderr)
        sys.exit(2)
    sys.exit()


def run_command(command: str, name: str, arguments: Sequence[str]) -> NoReturn:
    """Runs a sub-command and ends the process.

    Args:
      command: a key of `COMMANDS`.
      name: what messages begin with.
      arguments: flags and other arguments.
    """
    importlib.import_module(f"sat_jax.commands.{command}").PROGRAM.run(name, arguments)
    raise AssertionError("a program ends the process")


def _help() -> str:
    listed = "\n".join(f"  {name:10} {text}" for name, text in COMMANDS.items())
    return f"""Streaming Audio Transformers: tags sounds chunk by chunk.

usage: sat-jax COMMAND [arguments] [flags]

{listed}

sat-jax COMMAND --help describes a command; sat-jax --version prints the version."""


if __name__ == "__main__":
    main()
