"""The log of a download: one JSON object per clip and line.

{"clip": "-0RWZT-miFs_420.000_430.000", "outcome": "unavailable", "reason": "Private video"}
"""

import json
from pathlib import Path
from typing import Literal, NamedTuple

from sat_jax.errors import SatError

LOG_NAME = "download_log.jsonl"

Outcome = Literal["fetched", "unavailable", "failed"]
"""A failed clip is fetched again in the next run, an unavailable one is not."""


class Entry(NamedTuple):
    """A line of the log.

    Attributes:
      clip: the clip's id.
      outcome: see `Outcome`.
      reason: why it failed, or how a fetched clip differs from its segment; one line, may be empty.
    """

    clip: str
    outcome: Outcome
    reason: str


class Log:
    """The log of a folder: read at the start, then appended to. Later lines overrule earlier."""

    def __init__(self, folder: Path) -> None:
        """Reads the log if there is one.

        Raises:
          SatError: it can't be read.
        """
        self.path = folder / LOG_NAME
        self._outcomes: dict[str, str] = {}
        self._ends_within_line = False
        try:
            text = self.path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return
        except (OSError, UnicodeDecodeError) as error:
            raise SatError(f"cannot read {self.path}: {error}: move it away") from error
        for line in text.splitlines():
            try:
                entry = json.loads(line)
                self._outcomes[entry["clip"]] = entry["outcome"]
            except (ValueError, KeyError, TypeError):
                continue  # A power failure cut this line; its clip is fetched again.
        self._ends_within_line = bool(text) and not text.endswith("\n")

    def is_unavailable(self, clip: str) -> bool:
        """Whether an earlier run found the clip unavailable."""
        return self._outcomes.get(clip) == "unavailable"

    def add(self, entry: Entry) -> None:
        """Appends a line.

        Raises:
          OSError: it can't be written.
        """
        line = json.dumps(entry._asdict(), ensure_ascii=False) + "\n"
        with self.path.open("ab") as file:
            file.write(("\n" if self._ends_within_line else "").encode() + line.encode())
        self._ends_within_line = False
        self._outcomes[entry.clip] = entry.outcome
