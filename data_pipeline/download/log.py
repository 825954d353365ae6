"""What became of each clip, one JSON object a line.

{"clip": "-0RWZT-miFs_420.000_430.000", "outcome": "unavailable", "reason": "Private video"}
"""

import json
from pathlib import Path
from typing import Literal, NamedTuple

from sat_jax.errors import SatError

LOG_NAME = "download_log.jsonl"

Outcome = Literal["fetched", "unavailable", "failed"]
"""Unavailable is what it is of no use to ask for again."""


class Entry(NamedTuple):
    """What became of a clip.

    Attributes:
      clip: its id.
      outcome: see `Outcome`.
      reason: why, one line; of a fetched clip, what is odd about it, or "".
    """

    clip: str
    outcome: Outcome
    reason: str


class Log:
    """The log of a folder, read once and then only appended to; later lines overrule earlier."""

    def __init__(self, folder: Path) -> None:
        """Reads what is there.

        Raises:
          SatError: the file can't be read.
        """
        self.path = folder / LOG_NAME
        self._ends_within_line = False
        self._outcomes: dict[str, str] = {}
        try:
            self._read()
        except FileNotFoundError:
            pass
        except (OSError, UnicodeDecodeError) as error:
            raise SatError(f"cannot read {self.path}: {error}: move it away") from error

    def is_unavailable(self, clip: str) -> bool:
        """Whether an earlier run found that it is of no use to ask for this clip."""
        return self._outcomes.get(clip) == "unavailable"

    def add(self, entry: Entry) -> None:
        """Appends a line, whole or not at all but for a loss of power.

        Raises:
          OSError: it can't be written.
        """
        line = json.dumps(entry._asdict(), ensure_ascii=False) + "\n"
        with self.path.open("ab") as file:
            file.write(("\n" if self._ends_within_line else "").encode() + line.encode())
        self._ends_within_line = False
        self._outcomes[entry.clip] = entry.outcome

    def _read(self) -> None:
        with self.path.open(encoding="utf-8") as file:
            for line in file:
                self._ends_within_line = not line.endswith("\n")
                try:
                    entry = json.loads(line)
                    self._outcomes[entry["clip"]] = entry["outcome"]
                except (ValueError, KeyError, TypeError):
                    continue  # A line that a loss of power cut: the clip is asked for again.
