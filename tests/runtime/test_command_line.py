"""Flags, error messages, exit codes, and standard output that cannot be written."""

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

import pytest
from absl import flags

from sat_jax.errors import SatError
from sat_jax.runtime.command_line import Program, refuse_arguments, require_flags

ROOT = Path(__file__).parents[2]
PROGRAMS = (["infer.py"], ["-m", "sat_jax", "train"])

needs_full = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs Linux's /dev/full")


def make_program(
    main: Callable[[Sequence[str]], bool] = lambda _: False,
    check: Callable[[Sequence[str]], None] = lambda _: None,
) -> tuple[Program, dict[str, flags.FlagHolder]]:
    values = flags.FlagValues()
    holders: dict[str, flags.FlagHolder] = {
        "factor": flags.DEFINE_float(
            "factor", 1.0, "A number.", flag_values=values, short_name="f"
        ),
        "rate": flags.DEFINE_float("rate", 0.5, "One in [0, 1].", 0.0, 1.0, flag_values=values),
        "file": flags.DEFINE_string("file", None, "A file.", flag_values=values),
        "count": flags.DEFINE_integer("count", 1, "Whole.", flag_values=values, short_name="c"),
        "note": flags.DEFINE_string("note", "", "None by default.", flag_values=values),
        "wide": flags.DEFINE_bool("wide", False, "A truth.", flag_values=values),
    }
    program = Program(
        main=main, check=check, flag_values=values, doc="Does it.", arguments="FILE..."
    )
    return program, holders


def exit_code(call: Callable[..., object], *args: object) -> object:
    with pytest.raises(SystemExit) as stop:
        call(*args)
    return stop.value.code


@pytest.mark.parametrize("where", ["main", "check"])
def test_a_path_that_cannot_be_looked_at_is_one_line(
    where: str, capsys: pytest.CaptureFixture[str]
) -> None:
    name = 300 * "a"

    def look(_: Sequence[str]) -> bool:
        return Path(name).stat().st_size == 0

    program, _ = make_program(**{where: look})  # type: ignore[arg-type]
    if where == "check":
        assert exit_code(program.parse, ["prog"]) == 1
    else:
        program.name = "prog"
        assert exit_code(program.run_parsed, ["prog"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("prog: ") and name in line and "too long" in line


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--factor", "nan"], "--factor=nan"),
        (["--factor=-inf"], "--factor=-inf"),
        (["-f", "NaN"], "--factor=nan"),
        (["--rate", "nan"], "--rate=nan"),
        (["--rate", "1.5"], "--rate=1.5"),
        (["--factor", "x"], "--factor=x: not a number"),
        (["-c", "x"], "=x: not a whole number"),
        (["-c", "1.5"], "=1.5: not a whole number"),
        (["--file", ""], "--file"),
        (["--file="], "--file"),
        (["--nowide=3"], "--nowide"),
        (["--wide=maybe"], "--wide=maybe"),
        (["--unknown"], "unknown"),
    ],
)
def test_wrong_flags(
    arguments: Sequence[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    program, _ = make_program()
    assert exit_code(program.parse, ["prog", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1 and named in captured.err
    assert captured.err.startswith("prog: ") and captured.err.endswith("; see prog --help\n")
    assert "('" not in captured.err, "nothing of Python"


def test_right_flags() -> None:
    program, holders = make_program()
    assert program.parse(["prog", "a", "--factor", "-1e300", "--note=", "b"]) == ["prog", "a", "b"]
    values = {name: holder.value for name, holder in holders.items()}
    assert values == {
        "factor": -1e300,
        "rate": 0.5,
        "file": None,
        "count": 1,
        "note": "",
        "wide": False,
    }
    program.parse(["prog", "--rate=1"])
    assert (holders["factor"].value, holders["rate"].value) == (1.0, 1.0), "parsed afresh"


@pytest.mark.parametrize("flag", ["-h", "-help", "--help"])
def test_help(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    program, _ = make_program()
    assert exit_code(program.parse, ["sat-jax it", "--factor=nan", flag]) is None
    first, _, usage, _, *listed = capsys.readouterr().out.splitlines()
    assert (first, usage) == ("Does it.", "usage: sat-jax it FILE... [flags]")
    assert listed[0] == "flags:" and "--[no]wide" in " ".join(listed)
    assert __name__.rpartition(".")[2] not in " ".join(listed), "no module's name"


def test_checks_of_flags_and_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    def check(arguments: Sequence[str]) -> None:
        refuse_arguments(arguments, "use --file")
        require_flags(holders["file"])

    program, holders = make_program(check=check)
    assert exit_code(program.parse, ["prog", "a.wav", "--file=b"]) == 2
    assert "a.wav" in capsys.readouterr().err
    assert exit_code(program.parse, ["prog"]) == 2
    assert "--file" in capsys.readouterr().err
    assert program.parse(["prog", "--file=b"]) == ["prog"]


@pytest.mark.parametrize(
    ("outcome", "code", "message"),
    [
        (False, 0, ""),
        (True, 1, ""),
        (SatError("a\nb\x1b[2J.wav is no file"), 1, "prog: a b [2J.wav is no file\n"),
        (flags.Error("--k is wrong"), 2, "prog: --k is wrong; see prog --help\n"),
        (KeyboardInterrupt(), 130, "prog: run it again\n"),
    ],
)
def test_exit_codes(
    outcome: bool | BaseException, code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def main(arguments: Sequence[str]) -> bool:
        assert arguments == ["this"]
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    program, _ = make_program(main)
    program.name, program.on_interrupt = "prog", "run it again"
    assert exit_code(program.run_parsed, ["prog", "this"]) == code
    assert capsys.readouterr().err == message


def test_an_error_about_another_file_passes() -> None:
    def main(arguments: Sequence[str]) -> bool:
        del arguments
        open("/no/such/file")  # noqa: SIM115
        return False

    with pytest.raises(FileNotFoundError):
        make_program(main)[0].run_parsed(["prog"])


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
import sys
from absl import flags
from sat_jax.errors import SatError
from sat_jax.runtime.command_line import Program
def main(arguments):
    print("half")
    if arguments == ["fail"]:
        raise SatError("it failed")
    if arguments == ["stop"]:
        raise KeyboardInterrupt
    return False
Program(main=main, flag_values=flags.FlagValues(), doc="").run("prog", sys.argv[1:])
"""


@needs_full
@pytest.mark.parametrize(
    ("argument", "unbuffered", "code", "problems"),
    [
        ("end", False, 1, ["No space left"]),
        ("end", True, 1, ["No space left"]),
        ("fail", False, 1, ["it failed"]),
        ("fail", True, 1, ["No space left"]),
        ("stop", False, 130, []),
        ("--help", False, 1, ["No space left"]),
    ],
)
def test_printing_on_a_full_disk(
    argument: str, unbuffered: bool, code: int, problems: list[str]
) -> None:
    with (
        open("/dev/full", "wb") as full,
        start(["-c", PRINTING, argument], unbuffered=unbuffered, stdout=full) as process,
    ):
        for line, problem in zip(_errors(process).splitlines(), problems, strict=True):
            assert line.startswith("prog: ") and problem in line
        assert process.wait() == code
