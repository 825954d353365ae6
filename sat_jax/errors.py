"""The exception for errors that a user can fix."""

import re

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
