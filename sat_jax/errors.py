"""The one exception that users are meant to read (floor 0)."""


class SatError(Exception):
    """A problem the user can mend.

    Its message is one line that names the value or file at fault and the way out; command-line
    programs print it without a traceback.
    """
