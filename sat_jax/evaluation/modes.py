"""Evaluation modes: how a model scores a clip."""

import dataclasses
from collections.abc import Sequence
from typing import get_args

from sat_jax.config import Aggregation, FramingKind, ModelConfig, ModeName, Warmup, check_choice
from sat_jax.errors import SatError
from sat_jax.streaming.framing import Framing, make_framing


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mode:
    """An evaluation mode with its options.

    Attributes:
      name: "stream" scores chunk after chunk and carries the cache along; "chunks" scores each
        chunk alone; "sliding" scores the last `buffer` seconds after each delay; "clip" scores the
        whole clip at once.
      delay: seconds from one prediction to the next, at least 0.16; None is the model's chunk
        length. Unused in clip mode.
      framing: stream mode only, see `sat_jax.streaming.framing.Framing`.
      warmup: stream mode only, content of the cache at a clip's start.
      buffer: sliding mode only, seconds per window; less near a clip's start.
      aggregation: how a clip's predictions (in clip mode, those of its windows) become one.

    Raises:
      SatError: the name is unknown, or framing or buffer do not fit the mode.
    """

    name: ModeName = "stream"
    delay: float | None = None
    framing: FramingKind = "chunk"
    warmup: Warmup = "silence"
    buffer: float = 10.0
    aggregation: Aggregation = "mean"

    def __post_init__(self) -> None:
        """Checks that the options fit together."""
        check_choice("mode", self.name, get_args(ModeName))
        if self.framing == "seamless" and self.name != "stream":
            raise SatError(f"framing=seamless needs mode=stream, not {self.name}")
        if self.name == "sliding" and (self.delay or 0.0) > self.buffer:
            raise SatError(
                f"delay {self.delay:g} s is longer than the buffer of {self.buffer:g} s, which "
                "skips audio: give a longer buffer or a shorter delay"
            )

    def framing_for(self, config: ModelConfig) -> Framing:
        """Returns the framing of a model's streams at this delay.

        Raises:
          SatError: the delay does not fit the model.
        """
        return make_framing(config, self.framing, chunk_seconds=self.delay)

    def resolve(self, config: ModelConfig) -> "Mode":
        """Returns this mode with the model's exact delay and with unused options reset.

        Two resolved modes are equal only if they give the same scores.

        Raises:
          SatError: the delay does not fit the model.
        """
        delay = self.framing_for(config).hop / config.frontend.sample_rate
        return dataclasses.replace(
            self,
            delay=None if self.name == "clip" else delay,
            warmup=self.warmup if self.name == "stream" else "none",
            buffer=self.buffer if self.name == "sliding" else 0.0,
        )

    @property
    def label(self) -> str:
        """The mode without its delay, such as "stream, seamless"."""
        return ", ".join([self.name, *self._options()])

    @property
    def title(self) -> str:
        """The mode with its delay, such as "stream, 2 s, seamless"."""
        delay = [] if self.delay is None else [f"{self.delay:g} s"]
        return ", ".join([self.name, *delay, *self._options()])

    def _options(self) -> list[str]:
        words = ["seamless"] if self.framing == "seamless" else []
        words += ["no warm-up"] if self.name == "stream" and self.warmup == "none" else []
        return words + ([] if self.aggregation == "mean" else [self.aggregation])


def make_modes(
    names: Sequence[str], delays: Sequence[float | None], **options: object
) -> list[Mode]:
    """Combines each mode with each delay; clip mode, which has no delay, appears once.

    Args:
      names: mode names, at least one.
      delays: seconds, at least one.
      **options: the other fields of `Mode`.

    Raises:
      SatError: see `Mode`.
    """
    return [
        Mode(name=name, delay=delay, **options)  # type: ignore[arg-type]
        for name in dict.fromkeys(names)
        for delay in ([None] if name == "clip" else dict.fromkeys(delays))
    ]
