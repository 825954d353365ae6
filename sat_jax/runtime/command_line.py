"""Command-line programs: flags, one-line errors and exit codes.

Exit codes: 0 success, 1 failure, 2 wrong flags, 130 stopped by Ctrl-C, 141 the reader of standard
output went away (``| head``). An error is one line on standard error, after the program's name.
"""

import contextlib
import dataclasses
import errno
import math
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import NoReturn

from absl import app, flags, logging

from sat_jax.errors import SatError, one_line

FAILED, WRONG_FLAGS, INTERRUPTED = 1, 2, 130
PIPE_CLOSED = 141
"""Exit code of Unix tools that SIGPIPE ends."""

_BAD_PATH = (errno.ENAMETOOLONG, errno.ELOOP, errno.EACCES)
"""Errors of any call that gets such a path: of over 255 bytes, or in a folder that is closed."""


@dataclasses.dataclass(kw_only=True)
class Program:
    """A command with absl flags.

    Attributes:
      main: does the work. Takes the arguments that are not flags; returns True if anything failed.
        `SatError` ends the program with exit code 1, `flags.Error` with exit code 2.
      flag_values: the program's flags. absl's own flags, such as --verbosity, are added to them.
      doc: the text above the list of flags in --help: summary and examples.
      arguments: the arguments that are not flags, for the usage line, such as "RECORDING...".
      check: raises `flags.Error` for wrong flags or arguments.
      check_libraries: raises `SatError` if a library is missing without which the flags can't be
        parsed; --help works without it.
      flag_errors: further exceptions that parsing the flags may raise.
      explain: turns an exception of parsing into the message.
      on_interrupt: the message on Ctrl-C; none if empty.
      leave: ends the process with an exit code after `main`.
      name: the first words of every message, set by `run`.
    """

    main: Callable[[Sequence[str]], bool]
    flag_values: flags.FlagValues
    doc: str | None
    arguments: str = ""
    check: Callable[[Sequence[str]], None] = lambda arguments: None
    check_libraries: Callable[[], None] = lambda: None
    flag_errors: tuple[type[Exception], ...] = ()
    explain: Callable[[Exception], str] = str
    on_interrupt: str = ""
    leave: Callable[[int], NoReturn] = sys.exit
    name: str = "sat-jax"

    def run(self, name: str, arguments: Sequence[str]) -> NoReturn:
        """Runs the program and ends the process.

        Args:
          name: the first words of every message, such as "sat-jax tag".
          arguments: flags and other arguments.
        """
        # Python sets a stream to None if it was closed before the start.
        sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115
        sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115
        # ml_collections reads overrides of config fields from sys.argv.
        sys.argv = [name, *arguments]
        app.run(self.run_parsed, argv=sys.argv, flags_parser=self.parse)

    def parse(self, argv: Sequence[str]) -> list[str]:
        """Parses and checks flags; ends the process for --help and for wrong flags.

        Args:
          argv: the program's name, then flags and other arguments.

        Returns:
          The name and the arguments that are not flags.
        """
        self.name = argv[0]
        for name in self.flag_values:  # Tests run a program several times in a process.
            self.flag_values[name].unparse()
        if "verbosity" not in self.flag_values:
            self.flag_values.append_flag_values(flags.FLAGS)
        if {"-h", "-help", "--help"} & set(argv[1:]):
            with self._writing_output():
                print(self._help())
            sys.exit()
        try:
            self.check_libraries()
        except SatError as error:
            self.report(error)
            sys.exit(FAILED)
        wrong: tuple[type[Exception], ...] = (flags.Error, SatError, *self.flag_errors)
        try:
            rest = self._parse_flags(argv)
            flags.FLAGS.mark_as_parsed()
            _check_values(self.flag_values)
            self.check(rest[1:])
            return rest
        except wrong as error:
            self._exit_wrong_flags(error)
        except OSError as error:
            self._report_path(error)
            sys.exit(FAILED)

    def _help(self) -> str:
        modules = [
            self.flag_values.module_help(module).strip().partition("\n")[2]  # Without its name.
            for module in self.flag_values.flags_by_module_dict()
            if not module.startswith("absl.")
        ]
        usage = " ".join(filter(None, ("usage:", self.name, self.arguments, "[flags]")))
        listed = re.sub(r"\n *\(default: '(\[\])?'\)", "", "\n".join(modules))
        return "\n\n".join([(self.doc or "").strip(), usage, f"flags:\n{listed}"])

    def _parse_flags(self, argv: Sequence[str]) -> list[str]:
        try:
            return self.flag_values(argv)
        except self.flag_errors:
            raise
        except flags.IllegalFlagValueError as error:
            raise flags.Error(_without_python_words(str(error))) from error
        except ValueError as error:  # Raised by absl for --noFLAG=value.
            raise flags.Error(str(error)) from error

    def run_parsed(self, argv: Sequence[str]) -> NoReturn:
        """Runs `main` after `parse` and ends the process.

        Args:
          argv: the program's name and the arguments that are not flags.
        """
        # At a lower level JAX lists the accelerators it did not find, and orbax every step.
        logging.set_verbosity(logging.WARNING)
        code = self._run_main(argv[1:])
        try:
            sys.stdout.flush()
        except OSError:  # The error that ended `main` was reported already.
            _discard_output()
        self.leave(code)

    def _run_main(self, arguments: Sequence[str]) -> int:
        try:
            with self._writing_output():
                return FAILED if self.main(arguments) else 0
        except SatError as error:
            self.report(error)
            return FAILED
        except flags.Error as error:
            self._exit_wrong_flags(error)
        except OSError as error:
            self._report_path(error)
            return FAILED
        except KeyboardInterrupt:
            if self.on_interrupt:
                self.report(self.on_interrupt)
            return INTERRUPTED

    def report(self, problem: object) -> None:
        """Prints an error as one line on standard error."""
        with contextlib.suppress(OSError):  # Standard error may be closed.
            print(f"{self.name}: {one_line(str(problem))}", file=sys.stderr, flush=True)

    def _report_path(self, error: OSError) -> None:
        """Reports a path that cannot even be looked at; raises other errors again."""
        if error.errno not in _BAD_PATH:
            raise error
        self.report(f"cannot use {error.filename}: {error.strerror}")

    @contextlib.contextmanager
    def _writing_output(self) -> Iterator[None]:
        """Ends the program without a traceback if standard output cannot be written."""
        try:
            yield
            sys.stdout.flush()
        except OSError as error:
            if error.filename is not None:  # The error is about another file.
                raise
            _discard_output()
            if isinstance(error, BrokenPipeError):
                sys.exit(PIPE_CLOSED)
            self.report(f"cannot write standard output: {error.strerror or error}")
            sys.exit(FAILED)

    def _exit_wrong_flags(self, error: Exception) -> NoReturn:
        self.report(f"{' '.join(self.explain(error).split())}; see {self.name} --help")
        sys.exit(WRONG_FLAGS)


def _without_python_words(message: str) -> str:
    """Rewrites absl's message about a flag's value, which ends in Python's own error."""
    # absl shows a Python tuple of reason and value after it has named the value.
    message = re.sub(r"\('(.+)', .*\)$", r"\1", message)
    message = re.sub(r"invalid literal for int\(\) .*$", "not a whole number", message)
    return re.sub(r"could not convert string to float: .*$", "not a number", message)


def _check_values(flag_values: flags.FlagValues) -> None:
    """Refuses values that absl accepts but no flag of this project does."""
    for flag in (flag_values[name] for name in flag_values):
        if isinstance(flag.value, float) and not math.isfinite(flag.value):
            raise flags.IllegalFlagValueError(f"--{flag.name}={flag.value} is not a finite number")
        if flag.present and flag.value == "" and flag.default != "":
            raise flags.IllegalFlagValueError(
                f"--{flag.name} is empty: give a value, or leave the flag out"
            )


def _discard_output() -> None:
    """Sends the rest of standard output nowhere, so that Python's exit does not fail on it."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def refuse_arguments(arguments: Sequence[str], hint: str) -> None:
    """Refuses arguments that are not flags.

    Args:
      arguments: what the user gave.
      hint: the flag to use instead, for the message.

    Raises:
      flags.Error: there is an argument.
    """
    if arguments:
        raise flags.Error(f"unexpected argument {arguments[0]}: {hint}")


def require_flags(*holders: flags.FlagHolder) -> None:
    """Refuses to run without a value for each of these flags.

    absl's own `mark_flag_as_required` would apply to every program in the process.

    Raises:
      flags.Error: one has no value.
    """
    for holder in holders:
        if not holder.value:
            raise flags.Error(f"--{holder.name} is required")
