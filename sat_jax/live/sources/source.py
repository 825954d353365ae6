"""What every source of live sound is to those who listen to it."""

import dataclasses
from collections.abc import Iterator
from typing import NamedTuple, Protocol

import numpy as np


class Gap(NamedTuple):
    """Sound was lost here.

    Attributes:
      seconds: how much; above 0.
    """

    seconds: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class SourceStatus:
    """How a source is doing. It never holds a password.

    Attributes:
      up: whether sound comes.
      restarts: how often the source was opened anew.
      error: one line that tells what is wrong; "" if nothing is.
      silent: whether all samples of the last minute were zero.
      clipped: whether one of the last second was at full scale.
    """

    up: bool = False
    restarts: int = 0
    error: str = ""
    silent: bool = False
    clipped: bool = False


class Source(Protocol):
    """A source of live sound."""

    @property
    def status(self) -> SourceStatus:
        """How it is doing, for any thread."""
        ...

    def sound(self, sample_rate: int) -> Iterator[np.ndarray | Gap]:
        """Yields its sound; to be called once.

        It ends with standard input, or after `stop`. Other sources are opened anew, again and
        again.

        Args:
          sample_rate: of the result, Hz.

        Yields:
          float32 [s], mono, never empty; and gaps between them.

        Raises:
          SatError: the source has no such channel, or standard input is damaged.
        """
        ...

    def stop(self) -> None:
        """Ends `sound` within a second. Any thread may call it; it returns at once."""
        ...
