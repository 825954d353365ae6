"""The one exception that users are meant to read."""

import re

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


class SatError(Exception):
    """A problem the user can mend.

    Its message is one line that names the value or file at fault and the way out; command-line
    programs print it without a traceback.
    """


def one_line(text: str) -> str:
    """Makes text safe for a line of its own: no line breaks, tabs or terminal commands.

    Args:
      text: such as a file's name, which may hold all of these.
    """
    return _CONTROL.sub(" ", text)
