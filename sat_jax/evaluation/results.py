"""Results of evaluations."""

import dataclasses
from typing import Any, NamedTuple

from sat_jax.evaluation.modes import Mode
from sat_jax.metrics.event_scores import EventScores
from sat_jax.metrics.ranking import Metrics
from sat_jax.metrics.stability import Stability
from sat_jax.metrics.strong import OnsetDelays, SegmentPrecision


class MissingClip(NamedTuple):
    """A clip that could not be scored, and the reason."""

    clip: str
    reason: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cost:
    """Cost of one prediction.

    Attributes:
      is_streaming: whether the model carries a cache along.
      tokens: "new" or "new/cached" tokens.
      peak_memory_mib: temporary memory and state without the weights, MiB.
      gflops: of the network, two for each multiply-add.
      parameters: trainable numbers.
    """

    is_streaming: bool
    tokens: str
    peak_memory_mib: float
    gflops: float
    parameters: int


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class StrongMetrics:
    """Metrics on strong labels.

    Attributes:
      num_clips: clips with strong labels.
      segments: average precision over chunks.
      onsets: time from onset to detection.
      psds1: in [0, 1]; None if sed_scores_eval is not installed.
      told: how well events are told.
    """

    num_clips: int
    segments: SegmentPrecision
    onsets: OnsetDelays
    psds1: float | None
    told: EventScores

    def to_dict(self) -> dict[str, Any]:
        """Returns the overall numbers, JSON-ready."""
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
            "event_classes": self.told.num_classes,
            "event_collar": self.told.collar,
            "event_F1": self.told.macro_f1,
            "event_F1_micro": self.told.micro_f1,
            "event_delay_median": self.told.median_delay,
            "false_alarms_per_hour": self.told.false_alarms_per_hour,
        }


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Evaluation:
    """Results of one model in one mode.

    Attributes:
      model: the model's name.
      weights: where its weights came from.
      labels: y class names.
      mode: the resolved mode.
      metrics: ranking metrics of the clips that were scored.
      threshold: probability from which a class counts as detected, for the next two.
      stability: stability within clips; None in clip mode.
      strong: metrics on strong labels; None without them.
      missing: clips without scores.
      cost: of one prediction; None in clip mode.
      clips_per_second: speed of scoring; None if all scores existed before.
    """

    model: str
    weights: str
    labels: tuple[str, ...]
    mode: Mode
    metrics: Metrics
    threshold: float
    stability: Stability | None
    strong: StrongMetrics | None
    missing: tuple[MissingClip, ...]
    cost: Cost | None
    clips_per_second: float | None

    @property
    def title(self) -> str:
        """Model, delay and mode, such as "SAT_T_2s, 2 s, stream"."""
        delay = [] if self.mode.delay is None else [f"{self.mode.delay:g} s"]
        return ", ".join([self.model, *delay, self.mode.label])

    def to_dict(self) -> dict[str, Any]:
        """Returns the overall numbers, JSON-ready."""
        mode, metrics, stability = self.mode, self.metrics, self.stability
        return {
            "model": self.model,
            "weights": self.weights,
            "mode": mode.name,
            "delay": mode.delay,
            "framing": mode.framing if mode.name == "stream" else None,
            "warmup": mode.warmup if mode.name == "stream" else None,
            "buffer": mode.buffer if mode.name == "sliding" else None,
            "aggregation": mode.aggregation,
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
            "stability": stability
            and {
                "mean_squared_change": stability.mean_squared_change,
                "share_above_threshold": stability.mean_share_above,
            },
            "strong": self.strong and self.strong.to_dict(),
            "cost": self.cost and dataclasses.asdict(self.cost),
            "clips_per_second": self.clips_per_second,
        }
