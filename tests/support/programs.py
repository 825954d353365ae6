"""Runs programs in the test's own process, which is faster than a new one."""

import importlib

import pytest

from sat_jax.runtime.command_line import Program


def run_command(command: str, *arguments: object) -> int:
    """Runs `sat-jax COMMAND ARGUMENTS` and returns its exit code."""
    program = importlib.import_module(f"sat_jax.commands.{command}").PROGRAM
    return run_program(program, f"sat-jax {command}", *arguments)


def run_program(program: Program, name: str, *arguments: object) -> int:
    """Runs a program under a name and returns its exit code."""
    with pytest.raises(SystemExit) as end:
        program.run_parsed(program.parse([name, *map(str, arguments)]))
    return int(end.value.code or 0)
