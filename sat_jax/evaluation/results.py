"""What came of evaluations."""

import dataclasses
from typing import Any, NamedTuple

from sat_jax.metrics.ranking import Metrics
from sat_jax.metrics.stability import Stability
from sat_jax.metrics.strong import OnsetDelays, SegmentPrecision


class MissingClip(NamedTuple):
    """A clip without scores, and why."""

    clip: str
    reason: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cost:
    """What one answer about one clip costs.

    Attributes:
      is_streaming: whether the past is remembered.
      tokens: new ones, or new/cached.
      peak_memory_mib: temporary memory and state, weights left out.
      gflops: of the network, two for each multiply-add.
      parameters: trainable numbers.
    """

    is_streaming: bool
    tokens: str
    peak_memory_mib: float
    gflops: float
    parameters: int


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class StrongMeasures:
    """How well answers say when something is heard.

    Attributes:
      num_clips: clips for which that is known.
      segments: average precision over single answers.
      onsets: how soon an event is noticed.
      psds1: in [0, 1]; None if the library that measures it is missing.
    """

    num_clips: int
    segments: SegmentPrecision
    onsets: OnsetDelays
    psds1: float | None

    def to_dict(self) -> dict[str, Any]:
        """The numbers that stand for the whole, as JSON-ready data."""
        return {
            "clips": self.num_clips,
            "segments": self.segments.num_segments,
            "segment_classes_without_positives": self.segments.classes_without_positives,
            "segment_mAP": self.segments.mean_average_precision,
            "PSDS1": self.psds1,
            "events": self.onsets.events,
            "events_detected": self.onsets.detected,
            "onset_delay_median": self.onsets.median,
            "onset_delay_mean": self.onsets.mean,
        }


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Evaluation:
    """How good a model is when it hears clips in one way, and how that was found out.

    Attributes:
      model: the model's name, for people.
      weights: where its weights came from.
      labels: [y] its class names.
      mode: "clip", "stream", "chunks" or "sliding".
      delay: seconds from one answer to the next; None in clip mode, which waits for the end.
      framing: stream mode only, how streams were cut into chunks; else None.
      warmup: stream mode only, what the cache held at a clip's start; else None.
      buffer: sliding mode only, seconds heard for an answer; else None.
      aggregation: how the answers of a clip became one.
      metrics: the measures of the clips that were scored.
      threshold: from which probability on a class counts as heard, for the next two.
      stability: how steady the answers within clips are; None in clip mode.
      strong: measures of the clips for which is known what is heard when; None if there are none.
      missing: clips without scores.
      cost: of an answer; None in clip mode.
      clips_per_second: scored by this run; None if all had scores before.
    """

    model: str
    weights: str
    labels: tuple[str, ...]
    mode: str
    delay: float | None
    framing: str | None
    warmup: str | None
    buffer: float | None
    aggregation: str
    metrics: Metrics
    threshold: float
    stability: Stability | None
    strong: StrongMeasures | None
    missing: tuple[MissingClip, ...]
    cost: Cost | None
    clips_per_second: float | None

    @property
    def way(self) -> str:
        """How clips were heard but for the delay, such as "stream, seamless"."""
        words = [self.mode]
        words += ["seamless"] if self.framing == "seamless" else []
        words += ["no warm-up"] if self.warmup == "none" else []
        words += [] if self.aggregation == "mean" else [self.aggregation]
        return ", ".join(words)

    @property
    def title(self) -> str:
        """What tells it from others, such as "SAT_T_2s, 2 s, stream"."""
        delay = [] if self.delay is None else [f"{self.delay:g} s"]
        return ", ".join([self.model, *delay, self.way])

    def to_dict(self) -> dict[str, Any]:
        """The numbers that stand for the whole, as JSON-ready data."""
        metrics = self.metrics
        return {
            "model": self.model,
            "weights": self.weights,
            "mode": self.mode,
            "delay": self.delay,
            "framing": self.framing,
            "warmup": self.warmup,
            "buffer": self.buffer,
            "aggregation": self.aggregation,
            "clips_scored": metrics.num_clips,
            "clips_missing": len(self.missing),
            "classes": len(self.labels),
            "classes_without_positives": metrics.classes_without_positives,
            "classes_without_negatives": metrics.classes_without_negatives,
            "mAP": metrics.mean_average_precision,
            "mAUC": metrics.mean_auc,
            "dprime": metrics.dprime,
            "lwlrap": metrics.lwlrap,
            "threshold": self.threshold,
            "stability": self._stability(),
            "strong": None if self.strong is None else self.strong.to_dict(),
            "cost": None if self.cost is None else dataclasses.asdict(self.cost),
            "clips_per_second": self.clips_per_second,
        }

    def _stability(self) -> dict[str, float | None] | None:
        if self.stability is None:
            return None
        return {
            "mean_squared_change": self.stability.mean_squared_change,
            "share_above_threshold": self.stability.mean_share_above,
        }
