"""When a recording began: given by the user, or read from its name."""

import dataclasses
import os
import re
from datetime import datetime, timedelta

from sat_jax.errors import SatError
from sat_jax.tagging.options import Recording

NOW, NAME = "now", "name"

_DIGITS = {"Y": 4, "y": 2, "m": 2, "d": 2, "j": 3, "H": 2, "I": 2, "M": 2, "S": 2}
_DIRECTIVES = {key: rf"\d{{{count}}}" for key, count in _DIGITS.items()} | {
    "f": r"\d{1,6}",
    "p": "[AaPp][Mm]",
    "b": r"[^\W\d_]+",
    "B": r"[^\W\d_]+",
    "z": r"(?:Z|[+-]\d\d:?\d\d)",
    "%": "%",
}
"""Regular expressions of `datetime.strptime`'s directives."""

_USUAL = re.compile(
    r"(?<!\d)(\d{4})([-_.]?)(\d\d)\2(\d\d)"  # The date.
    r"\D{0,20}(?:RTSP_\d+-)?"  # BirdNET-Pi names its cameras between them.
    r"(\d\d)([-_.:h]?)(\d\d)[-_.:m]?(\d\d)(?!\d)"  # The time.
    r"(?:(Z|[+-](?:0\d|1[0-4]):?(?:00|30|45))(?![^\W_]))?"  # The zone.
)
"""Date and time as most recorders write them: 20261129_140322, 2026-11-29-birdnet-14:03:22."""


@dataclasses.dataclass(frozen=True)
class StartTime:
    """The rule by which recordings get the time of their first sample.

    Attributes:
      rule: an ISO 8601 date and time; "name" for one in the recording's name, as most recorders
        write it; a pattern of `datetime.strptime` for another one there; or "now" for the moment
        when live sound arrives.

    Raises:
      SatError: `rule` is none of these.
    """

    rule: str

    def __post_init__(self) -> None:
        """Checks the rule."""
        if "%" in self.rule:
            _regular_expression(self.rule)
        elif self.rule not in (NOW, NAME):
            _parse_iso(self.rule)

    def of(self, recording: Recording) -> datetime | None:
        """Returns when a recording began; None if that is known only once its sound arrives.

        The time has a zone if the rule or the name states one.

        Raises:
          SatError: the name has no date and time, a file cannot begin now, or the year is 9999.
        """
        began = self._find(recording)
        if began and began.year == datetime.max.year:
            raise SatError(f"{recording.name}: begins in {began.year}: times must be before that")
        return began

    def _find(self, recording: Recording) -> datetime | None:
        if self.rule == NOW:
            if not recording.is_live:
                raise SatError(f"{recording.name}: start_time=now is only for live sound")
            return None
        if self.rule != NAME and "%" not in self.rule:
            return _parse_iso(self.rule)
        name = os.path.basename(recording.name)
        began = _in_usual_form(name) if self.rule == NAME else _by_pattern(name, self.rule)
        if began is None:
            advice = "give its pattern, such as %y%m%d-%H%M" if self.rule == NAME else "correct it"
            raise SatError(
                f"{recording.name}: no date and time in its name by start_time={self.rule}: "
                f"{advice}"
            )
        return began


def clock_time(began: datetime, seconds: float) -> str:
    """Returns a time of a recording in ISO 8601, to the millisecond.

    Args:
      began: the time of the first sample.
      seconds: from the first sample.
    """
    return (began + timedelta(seconds=round(seconds, 3))).isoformat(timespec="milliseconds")


def _parse_iso(text: str) -> datetime:
    try:
        if len(text) > len("2026-11-29"):  # A date alone would mean midnight.
            return datetime.fromisoformat(text)
    except ValueError:
        pass
    raise SatError(
        f"start_time={text}: give a time such as 2026-11-29T14:03:22, name, now, or a pattern such "
        f"as %Y%m%d_%H%M%S"
    )


def _in_usual_form(name: str) -> datetime | None:
    for match in _USUAL.finditer(name):
        year, _, month, day, hour, _, minute, second, zone = match.groups()
        try:
            return datetime.fromisoformat(
                f"{year}-{month}-{day}T{hour}:{minute}:{second}{zone or ''}"
            )
        except ValueError:  # Such as the 40th day.
            continue
    return None


def _by_pattern(name: str, pattern: str) -> datetime | None:
    for match in _regular_expression(pattern).finditer(name):
        try:
            return datetime.strptime(match[0], pattern)
        except ValueError:
            continue
    return None


def _regular_expression(pattern: str) -> re.Pattern[str]:
    # After a split by "%" and what follows it, every other part is a directive.
    parts = re.split("%(.?)", pattern, flags=re.DOTALL)
    directives = parts[1::2]
    if unknown := [each for each in directives if each not in _DIRECTIVES]:
        raise SatError(
            f"start_time={pattern}: %{unknown[0]} is not one of %{' %'.join(_DIRECTIVES)}"
        )
    if not ({"Y", "y"} & set(directives) and {"d", "j"} & set(directives)):
        raise SatError(f"start_time={pattern}: has no date: give year and day, such as %Y%m%d")
    found = "".join(
        _DIRECTIVES[part] if index % 2 else re.escape(part) for index, part in enumerate(parts)
    )
    return re.compile(rf"(?<!\d){found}(?!\d)")
