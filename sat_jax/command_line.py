"""How all programs take flags, tell of errors and end (floor 0).

Exit codes: 0 all was done, 1 something failed, 2 wrong flags, 130 stopped by Ctrl-C. An error is
one line on standard error that begins with the program's name.
"""

import contextlib
import dataclasses
import os
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from absl import app, flags, logging

from sat_jax.errors import SatError

FAILED, WRONG_FLAGS, INTERRUPTED = 1, 2, 130


@dataclasses.dataclass(frozen=True, kw_only=True)
class Program:
    """A program with absl flags.

    Attributes:
      name: what it is called in its messages.
      main: does what the flags ask for, given the arguments that are no flags; returns whether
        something failed. `SatError` ends it with one line, and so does `flags.Error`, for flags
        that are found out late.
      check: finds what is wrong with flags or arguments, and raises `flags.Error`; nothing is
        checked by default.
      call: how a person starts it; its name by default.
      flag_errors: what else reading the flags may raise, where values are more than text.
      on_interrupt: what it says when it is stopped by Ctrl-C; nothing by default.
    """

    name: str
    main: Callable[[Sequence[str]], bool]
    check: Callable[[Sequence[str]], None] = lambda arguments: None
    call: str = ""
    flag_errors: tuple[type[Exception], ...] = ()
    on_interrupt: str = ""

    def report(self, problem: object) -> None:
        """Tells of an error in one line."""
        with contextlib.suppress(OSError):  # Nobody may be there to read it.
            print(f"{self.name}: {problem}", file=sys.stderr, flush=True)

    def run(self) -> None:
        """Runs the program with the flags of the command line, and ends the process."""
        # A stream that was closed before the start is None to Python, which few expect.
        sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115
        sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115
        app.run(self.run_parsed, flags_parser=self.parse)

    def parse(self, argv: Sequence[str]) -> list[str]:
        """Reads and checks the flags; ends the process where they are wrong."""
        if {"-h", "-help", "--help"} & set(argv[1:]):
            app.usage(shorthelp=True, writeto_stdout=True, exitcode=0)
        wrong: tuple[type[Exception], ...] = (flags.Error, SatError, *self.flag_errors)
        try:
            rest = flags.FLAGS(argv)
            self.check(rest[1:])
            return rest
        except wrong as error:
            self._refuse(error)

    def run_parsed(self, argv: Sequence[str]) -> NoReturn:
        """Runs `main` with parsed flags, and ends the process."""
        # JAX tells at this level which accelerators it did not find, orbax all it does.
        logging.set_verbosity(logging.WARNING)
        try:
            failed = self.main(argv[1:])
        except SatError as error:
            self.report(error)
            failed = True
        except flags.Error as error:
            self._refuse(error)
        except KeyboardInterrupt:
            if self.on_interrupt:
                self.report(self.on_interrupt)
            sys.exit(INTERRUPTED)
        sys.exit(FAILED if failed else 0)

    def _refuse(self, error: Exception) -> NoReturn:
        self.report(f"{' '.join(str(error).split())}; see {self.call or self.name} --help")
        sys.exit(WRONG_FLAGS)


def refuse_arguments(hint: str) -> Callable[[Sequence[str]], None]:
    """A check for programs that take flags only; `hint` says where recordings are named."""

    def check(arguments: Sequence[str]) -> None:
        if arguments:
            raise flags.Error(f"{arguments[0]} is no flag: {hint}")

    return check


def need(*holders: flags.FlagHolder) -> None:
    """Refuses flags that are not given; not marked as required, which all programs would share.

    Raises:
      flags.Error: one has no value.
    """
    for holder in holders:
        if not holder.value:
            raise flags.Error(f"--{holder.name} is needed")
