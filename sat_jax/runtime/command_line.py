"""How all programs take flags, tell of errors and end.

Exit codes: 0 all was done, 1 something failed, 2 wrong flags, 130 stopped by Ctrl-C, 141 nobody
reads the output any more. An error is one line on standard error that begins with the program's
name; a reader that went away (``| head``) is none.
"""

import contextlib
import dataclasses
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
"""That of a Unix tool ended by SIGPIPE."""


@dataclasses.dataclass(kw_only=True)
class Program:
    """A command with absl flags of its own.

    Attributes:
      main: does the work; takes the arguments that are not flags, returns whether anything failed.
        `SatError` ends the program with one line, and so does `flags.Error` for flags that are
        checked late.
      flag_values: the program's flags. absl's own (such as --verbosity) are added to them.
      doc: the text of --help before the list of flags: summary, usage and examples.
      check: raises `flags.Error` for wrong flags or arguments; checks nothing by default.
      flag_errors: what else reading the flags may raise.
      explain: turns an error in the flags into the message for the user.
      on_interrupt: printed on Ctrl-C; nothing by default.
      setup: called before flags are read.
      name: what messages begin with; set from the command line.
    """

    main: Callable[[Sequence[str]], bool]
    flag_values: flags.FlagValues
    doc: str | None
    check: Callable[[Sequence[str]], None] = lambda arguments: None
    flag_errors: tuple[type[Exception], ...] = ()
    explain: Callable[[Exception], str] = str
    on_interrupt: str = ""
    setup: Callable[[], None] = lambda: None
    name: str = "sat-jax"

    def report(self, problem: object) -> None:
        """Prints an error as one line on standard error."""
        with contextlib.suppress(OSError):  # Nobody may be there to read it.
            print(f"{self.name}: {one_line(str(problem))}", file=sys.stderr, flush=True)

    def run(self, name: str, arguments: Sequence[str]) -> NoReturn:
        """Runs the program and ends the process.

        Args:
          name: what messages begin with, such as "sat-jax tag".
          arguments: flags and other arguments.
        """
        # A stream that was closed before the start is None to Python, which few expect.
        sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115
        sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115
        # ml_collections reads overrides of config files from here.
        sys.argv = [name, *arguments]
        self.setup()
        app.run(self.run_parsed, argv=sys.argv, flags_parser=self.parse)

    def parse(self, argv: Sequence[str]) -> list[str]:
        """Reads and checks the flags; ends the process if they are wrong."""
        self.name = argv[0]
        for name in self.flag_values:
            self.flag_values[name].unparse()
        if "verbosity" not in self.flag_values:  # It is absl's; they are shared from here on.
            self.flag_values.append_flag_values(flags.FLAGS)
        if {"-h", "-help", "--help"} & set(argv[1:]):
            with self._printing():
                print(self._help())
            sys.exit()
        wrong: tuple[type[Exception], ...] = (flags.Error, SatError, *self.flag_errors)
        try:
            rest = self._read_flags(argv)
            flags.FLAGS.mark_as_parsed()
            _check_values(self.flag_values)
            self.check(rest[1:])
            return rest
        except wrong as error:
            self._refuse(error)

    def _help(self) -> str:
        listed = [
            self.flag_values.module_help(module)
            for module in self.flag_values.flags_by_module_dict()
            if not module.startswith("absl.")
        ]
        return "\n\n".join([(self.doc or "").strip(), "flags:", *listed])

    def _read_flags(self, argv: Sequence[str]) -> list[str]:
        try:
            return self.flag_values(argv)
        except self.flag_errors:
            raise
        except ValueError as error:  # absl's own, for --noFLAG with a value.
            raise flags.Error(str(error)) from error
        except flags.IllegalFlagValueError as error:
            # absl shows Python's tuple of a reason and the value, which it has named before.
            raise flags.Error(re.sub(r"\('(.+)', .*\)$", r"\1", str(error))) from error

    def run_parsed(self, argv: Sequence[str]) -> NoReturn:
        """Runs `main` with parsed flags, and ends the process."""
        # JAX tells at this level which accelerators it did not find, orbax all it does.
        logging.set_verbosity(logging.WARNING)
        code = self._run_main(argv[1:])
        try:
            sys.stdout.flush()
        except OSError:  # After an error that was told of.
            _discard_standard_output()
        sys.exit(code)

    def _run_main(self, arguments: Sequence[str]) -> int:
        try:
            with self._printing():
                failed = self.main(arguments)
            return FAILED if failed else 0
        except SatError as error:
            self.report(error)
            return FAILED
        except flags.Error as error:
            self._refuse(error)
        except KeyboardInterrupt:
            if self.on_interrupt:
                self.report(self.on_interrupt)
            return INTERRUPTED

    @contextlib.contextmanager
    def _printing(self) -> Iterator[None]:
        """Ends the program without a traceback where what it prints can't be written."""
        try:
            yield
            sys.stdout.flush()
        except OSError as error:
            if error.filename is not None:  # It was another file.
                raise
            _discard_standard_output()
            if isinstance(error, BrokenPipeError):
                sys.exit(PIPE_CLOSED)
            self.report(f"cannot write standard output: {error.strerror or error}")
            sys.exit(FAILED)

    def _refuse(self, error: Exception) -> NoReturn:
        self.report(f"{' '.join(self.explain(error).split())}; see {self.name} --help")
        sys.exit(WRONG_FLAGS)


def _check_values(flag_values: flags.FlagValues) -> None:
    """Refuses what absl lets pass but no flag of ours means."""
    for name in flag_values:
        flag = flag_values[name]
        if isinstance(flag.value, float) and not math.isfinite(flag.value):
            raise flags.IllegalFlagValueError(f"--{flag.name}={flag.value} is no finite number")
        # Where nothing is the default, giving nothing is giving the default.
        if flag.present and flag.value == "" and flag.default != "":
            raise flags.IllegalFlagValueError(f"--{flag.name} is empty: leave it out, or fill it")


def _discard_standard_output() -> None:
    """Lets the interpreter print and flush what is left at its exit without another error."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


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
