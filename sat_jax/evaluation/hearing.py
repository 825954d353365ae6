"""The ways in which a model may hear a clip."""

import dataclasses
from collections.abc import Sequence
from typing import Literal, get_args

from sat_jax.config import ModelConfig, check_choice
from sat_jax.errors import SatError
from sat_jax.streaming.framing import Framing, FramingKind, make_framing
from sat_jax.streaming.pieces import Aggregation
from sat_jax.streaming.step import Warmup

EvaluationMode = Literal["clip", "stream", "chunks", "sliding"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Hearing:
    """How a clip gets its answers.

    Attributes:
      mode: "clip" hears a whole clip at once; "stream" hears it chunk by chunk, the cache carried
        along; "chunks" hears each chunk as if it were alone; "sliding" hears, after each delay,
        the last seconds before it as if they were a clip.
      delay: seconds from one answer to the next, at least 0.16; None is the model's own chunk.
        Clip mode has none.
      framing: stream mode only, see `sat_jax.streaming.framing.Framing`.
      warmup: stream mode only, what the cache holds at a clip's start.
      buffer: sliding mode only, how many seconds it hears; fewer near a clip's start.
      aggregation: how a clip's answers (in clip mode, those of its pieces) become one.

    Raises:
      SatError: there is no such mode, or framing or buffer do not suit it.
    """

    mode: EvaluationMode = "stream"
    delay: float | None = None
    framing: FramingKind = "chunk"
    warmup: Warmup = "silence"
    buffer: float = 10.0
    aggregation: Aggregation = "mean"

    def __post_init__(self) -> None:
        """Refuses what could never work."""
        check_choice("mode", self.mode, get_args(EvaluationMode))
        if self.framing == "seamless" and self.mode != "stream":
            raise SatError(
                f"framing=seamless joins the chunks of a stream, mode={self.mode} has none: use "
                "framing=chunk"
            )
        if self.mode == "sliding" and (self.delay or 0.0) > self.buffer:
            raise SatError(
                f"a buffer of {self.buffer:g} s moved by {self.delay:g} s would miss what is "
                "between: give a longer buffer or a shorter delay"
            )

    def framing_of(self, config: ModelConfig) -> Framing:
        """How a model's streams are cut.

        Raises:
          SatError: the delay does not suit the model.
        """
        return make_framing(config, self.framing, chunk_seconds=self.delay)

    def for_model(self, config: ModelConfig) -> "Hearing":
        """The same with the delay that this model really has, and defaults where others go unused.

        Two of these are equal only if they give the same answers.

        Raises:
          SatError: the delay does not suit the model.
        """
        delay = self.framing_of(config).hop / config.frontend.sample_rate
        streams, slides = self.mode == "stream", self.mode == "sliding"
        return dataclasses.replace(
            self,
            delay=None if self.mode == "clip" else delay,
            warmup=self.warmup if streams else "none",
            buffer=self.buffer if slides else 0.0,
        )

    @property
    def title(self) -> str:
        """A few words for people, such as "stream, 2 s"."""
        words: list[str] = [self.mode]
        words += [] if self.delay is None else [f"{self.delay:g} s"]
        words += ["seamless"] if self.framing == "seamless" else []
        words += ["no warm-up"] if self.mode == "stream" and self.warmup == "none" else []
        words += [] if self.aggregation == "mean" else [self.aggregation]
        return ", ".join(words)


def make_hearings(
    modes: Sequence[str], delays: Sequence[float | None], **options: object
) -> list[Hearing]:
    """Each mode at each delay; clip mode, which has none, once.

    Args:
      modes: at least one.
      delays: at least one.
      **options: the other fields of `Hearing`.

    Raises:
      SatError: one of them could never work.
    """
    return [
        Hearing(mode=mode, delay=delay, **options)  # type: ignore[arg-type]
        for mode in dict.fromkeys(modes)
        for delay in ([None] if mode == "clip" else dict.fromkeys(delays))
    ]
