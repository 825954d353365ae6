"""The exception for errors that a user can fix."""

import re
from collections.abc import Iterable

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


class SatError(Exception):
    """An error that the user can fix.

    Its message is one line: what is wrong, the value or file, and what to do. Commands print it
    without a traceback.
    """


def one_line(text: str) -> str:
    """Replaces line breaks, tabs and other control characters by spaces.

    Args:
      text: such as a file's name, which may contain terminal commands.
    """
    return _CONTROL.sub(" ", text)


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """Returns a hint for a message, such as ``: did you mean 'Dog'?``; "" if no choice is near.

    Args:
      word: the unknown name. Case is ignored.
      choices: the known names. Of a name with commas, one part is enough to be near.
    """
    import difflib  # Only errors need it.

    near = {part.casefold(): each for each in choices for part in (*each.split(", "), each)}
    found = difflib.get_close_matches(word.casefold(), near, n=1)
    return f": did you mean {near[found[0]]!r}?" if found else ""


def require(is_valid: bool, message: str) -> None:
    """Raises `SatError` with the message unless a value is valid."""
    if not is_valid:
        raise SatError(message)
