"""When a class counts as heard, and for how long."""

import dataclasses
import math

from sat_jax.errors import require

MAX_SMOOTH = 99


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rule:
    """How scores become events. All times are seconds.

    Attributes:
      on: score from which the class is heard, in (0, 1).
      off: score under which it is no longer heard; None is one unit of log odds under `on`.
      min_on: shorter events are ignored.
      min_off: events with a shorter gap between them are one.
      max_on: an event of this length ends; if the sound goes on, another one continues it.
      cooldown: an event that starts so soon after the last one ended is muted.
      smooth: number of chunks, odd, whose median is compared with `on` and `off`; 1 is none.

    Raises:
      SatError: a value is out of range.
    """

    on: float = 0.5
    off: float | None = None
    min_on: float = 0.0
    min_off: float = 3.0
    max_on: float = 3600.0
    cooldown: float = 0.0
    smooth: int = 1

    def __post_init__(self) -> None:
        """Checks ranges."""
        require(0.0 < self.on < 1.0, f"on={self.on:g}: use a number above 0 and below 1")
        off = self.off_score
        require(0.0 <= off <= self.on, f"off={off:g}: use a number from 0 to on={self.on:g}")
        for name in ("min_on", "min_off", "cooldown"):
            value = getattr(self, name)
            require(0.0 <= value < math.inf, f"{name}={value:g}: use seconds, 0 or more")
        least = max(self.min_on, 1.0)
        require(self.max_on >= least, f"max_on={self.max_on:g}: use at least {least:g} s")
        require(
            1 <= self.smooth <= MAX_SMOOTH and self.smooth % 2 == 1,
            f"smooth={self.smooth}: use an odd number from 1 to {MAX_SMOOTH}",
        )

    @property
    def off_score(self) -> float:
        """`off`, or its default."""
        if self.off is not None:
            return self.off
        return 1.0 / (1.0 + math.exp(1.0) * (1.0 - self.on) / self.on)
