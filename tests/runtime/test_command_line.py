"""What all programs share: how flags are refused, and what becomes of output nobody takes."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import pytest
from absl import flags

from sat_jax.errors import SatError
from sat_jax.runtime.command_line import Program

ROOT = Path(__file__).parents[2]
PROGRAMS = (["infer.py"], ["train.py"], ["-m", "sat_jax.convert"], ["-m", "data_pipeline.psl"])

needs_full = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs Linux's /dev/full")


def make_program() -> tuple[Program, dict[str, flags.FlagHolder]]:
    values = flags.FlagValues()
    holders = {
        "factor": flags.DEFINE_float(
            "factor", 1.0, "A number.", flag_values=values, short_name="f"
        ),
        "rate": flags.DEFINE_float("rate", 0.5, "One in [0, 1].", 0.0, 1.0, flag_values=values),
        "file": flags.DEFINE_string("file", None, "A file.", flag_values=values),
        "note": flags.DEFINE_string("note", "", "None by default.", flag_values=values),
    }
    flags.DEFINE_bool("wide", False, "A truth.", flag_values=values)
    return Program(main=lambda _: False, flag_values=values, doc="Does it."), holders


@pytest.mark.parametrize(
    "arguments",
    [
        ["--factor", "nan"],
        ["--factor=-inf"],
        ["-f", "NaN"],
        ["--rate", "nan"],
        ["--file", ""],
        ["--file="],
        ["--nowide=3"],
        ["--wide=maybe"],
    ],
)
def test_flags_that_absl_lets_pass(
    arguments: Sequence[str], capsys: pytest.CaptureFixture[str]
) -> None:
    program, _ = make_program()
    with pytest.raises(SystemExit) as stop:
        program.parse(["prog", *arguments])
    assert stop.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1
    assert captured.err.startswith("prog: ") and captured.err.endswith("; see prog --help\n")
    assert "(" not in captured.err, "nothing of Python"


def test_flags_that_are_fine() -> None:
    program, holders = make_program()
    assert program.parse(["prog", "a", "--factor", "-1e300", "--note=", "b"]) == ["prog", "a", "b"]
    assert {name: holder.value for name, holder in holders.items()} == {
        "factor": -1e300,
        "rate": 0.5,
        "file": None,
        "note": "",
    }


def test_an_error_is_one_line_whatever_a_file_is_called(capsys: pytest.CaptureFixture[str]) -> None:
    program, _ = make_program()
    program.name = "prog"
    program.report(SatError("a\nb\x1b[2J.wav is no file"))
    assert capsys.readouterr().err == "prog: a b [2J.wav is no file\n"


def start(
    arguments: Sequence[str], *, stdout: int | IO[bytes], unbuffered: bool = False
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=ROOT,
        stdout=stdout,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": "1" if unbuffered else ""},
    )


def _errors(process: subprocess.Popen[bytes]) -> str:
    assert process.stderr is not None
    return process.stderr.read().decode()


@needs_full
@pytest.mark.parametrize("arguments", PROGRAMS)
def test_help_on_a_full_disk(arguments: Sequence[str]) -> None:
    with open("/dev/full", "wb") as full, start([*arguments, "--help"], stdout=full) as process:
        (line,) = _errors(process).splitlines()
        assert process.wait() == 1
    assert line.endswith(": cannot write standard output: No space left on device")


@pytest.mark.parametrize("unbuffered", [False, True])
@pytest.mark.parametrize("arguments", PROGRAMS)
def test_help_that_nobody_reads(arguments: Sequence[str], unbuffered: bool) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with start([*arguments, "--help"], unbuffered=unbuffered, stdout=writer) as process:
        os.close(writer)
        assert _errors(process) == ""
        assert process.wait() == 141


PRINTING = """
from sat_jax.runtime.command_line import Program
from sat_jax.errors import SatError
def main(arguments):
    print("half")
    if arguments == ["fail"]:
        raise SatError("it failed")
    if arguments == ["stop"]:
        raise KeyboardInterrupt
    return False
Program(name="prog", main=main).run()
"""


@needs_full
@pytest.mark.parametrize(
    ("how", "unbuffered", "code", "message"),
    [
        ("end", False, 1, "prog: cannot write standard output: No space left on device\n"),
        ("end", True, 1, "prog: cannot write standard output: No space left on device\n"),
        ("fail", False, 1, "prog: it failed\n"),
        ("fail", True, 1, "prog: cannot write standard output: No space left on device\n"),
        ("stop", False, 130, ""),
    ],
)
def test_printing_on_a_full_disk(how: str, unbuffered: bool, code: int, message: str) -> None:
    with (
        open("/dev/full", "wb") as full,
        start(["-c", PRINTING, how], unbuffered=unbuffered, stdout=full) as process,
    ):
        assert _errors(process) == message
        assert process.wait() == code


def test_another_file_s_error_is_not_taken_for_one_of_printing() -> None:
    def main(arguments: Sequence[str]) -> bool:
        del arguments
        open("/no/such/file")  # noqa: SIM115
        return False

    with pytest.raises(FileNotFoundError):
        Program(name="prog", main=main).run_parsed(["prog"])


def test_errors_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    def main(arguments: Sequence[str]) -> bool:
        raise SatError(f"{arguments[0]} is wrong")

    with pytest.raises(SystemExit) as stop:
        Program(name="prog", main=main).run_parsed(["prog", "this"])
    assert stop.value.code == 1
    assert capsys.readouterr().err == "prog: this is wrong\n"
