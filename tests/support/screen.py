"""What a person sees of a program's terminal output."""

import re

_PARTS = re.compile(r"\x1b\[(\??)([\d;]*)([A-Za-z])|([^\x1b])", re.S)
_BEGUN = re.compile(r"\x1b(\[\??[\d;]*)?")


class Screen:
    """A terminal that knows the commands that this project uses, and refuses others."""

    def __init__(self, text: str = "") -> None:
        """Starts empty."""
        self._rest = ""
        self._rows: list[str] = [""]
        self._row = self._column = 0
        self.is_restored = True
        self.write(text)

    @property
    def lines(self) -> list[str]:
        """The lines, without blanks at their ends."""
        return [row.rstrip() for row in self._rows]

    def write(self, text: str) -> None:
        """Takes what a program writes."""
        text, position = self._rest + text, 0
        self._rest = ""
        while position < len(text):
            match = _PARTS.match(text, position)
            if not match and _BEGUN.fullmatch(text, position):
                self._rest = text[position:]  # The rest comes with the next text.
                return
            assert match, f"unknown command {text[position : position + 9]!r}"
            private, numbers, command, letter = match.groups()
            self._put(letter) if letter else self._do(private, numbers, command)
            position = match.end()

    def _put(self, letter: str) -> None:
        row = self._rows[self._row]
        if letter == "\n":
            self._row += 1
            self._rows += [""] * (self._row + 1 - len(self._rows))
            self._column = 0
        elif letter == "\r":
            self._column = 0
        else:
            row = row.ljust(self._column)
            self._rows[self._row] = row[: self._column] + letter + row[self._column + 1 :]
            self._column += 1

    def _do(self, private: str, numbers: str, command: str) -> None:
        if private:
            self.is_restored = command == "h"
        elif command == "F":
            assert 1 <= int(numbers) <= self._row, "it moves above what it has drawn"
            self._row, self._column = self._row - int(numbers), 0
        elif command == "K":
            self._rows[self._row] = self._rows[self._row][: self._column]
        elif command == "J" and numbers == "2":
            self._rows, self._row = [""] * len(self._rows), self._row
        elif command == "J":
            self._rows[self._row + 1 :] = []
            self._rows[self._row] = self._rows[self._row][: self._column]
        elif command == "H":
            self._row = self._column = 0
        else:
            assert command == "m", f"unknown command {command}"
