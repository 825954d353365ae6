"""Runs sub-commands in the test's own process, which is faster than a new one."""

import importlib

import pytest


def run_command(command: str, *arguments: object) -> int:
    """Runs `sat-jax COMMAND ARGUMENTS` and returns its exit code."""
    program = importlib.import_module(f"sat_jax.commands.{command}").PROGRAM
    with pytest.raises(SystemExit) as end:
        program.run_parsed(program.parse([f"sat-jax {command}", *map(str, arguments)]))
    return int(end.value.code or 0)
