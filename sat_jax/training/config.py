"""What a training run is made of, as plain data."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Self

from sat_jax.config import AnyConfig, MaeConfig, ModelConfig, build_config, model_from_dict
from sat_jax.errors import SatError
from sat_jax.training.augment import AugmentConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """AdamW, and the course of its learning rate over a run.

    Attributes:
      learning_rate: the highest, reached at the end of the warm-up.
      warmup_fraction: share of the run in which the learning rate rises linearly.
      final_fraction: last learning rate over the highest; between them lies a half cosine.
      weight_decay: decoupled, times the learning rate; see `sat_jax.training.optimizer`.
      clip_norm: longer gradients (global L2 norm) are shortened to this; 0 leaves all as they are.
      b1: decay of the mean of gradients.
      b2: decay of the mean of their squares.
      eps: added to the root of the latter.
      layer_decay: learning rate of a block over that of the block above it; the head has all of
        it, the patch embedding the least. 1 is the same for all; with 0 only the head and the norms
        before it learn.
      accumulate: steps whose gradients are averaged into one update.

    Raises:
      SatError: a value is out of range.
    """

    learning_rate: float
    warmup_fraction: float = 0.0
    final_fraction: float = 0.0
    weight_decay: float = 0.0
    clip_norm: float = 0.0
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8
    layer_decay: float = 1.0
    accumulate: int = 1

    def __post_init__(self) -> None:
        """Refuses values out of range."""
        if not self.learning_rate > 0.0 or not self.eps > 0.0:
            raise SatError(
                f"optimizer.learning_rate={self.learning_rate} and optimizer.eps={self.eps} "
                "must be above 0"
            )
        for name in ("weight_decay", "clip_norm"):
            if not getattr(self, name) >= 0.0:
                raise SatError(f"optimizer.{name}={getattr(self, name)} is under 0")
        for name in ("warmup_fraction", "b1", "b2"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise SatError(f"optimizer.{name}={getattr(self, name)} is not a share in [0, 1)")
        if not 0.0 <= self.layer_decay <= 1.0:
            raise SatError(f"optimizer.layer_decay={self.layer_decay} is not in [0, 1]")
        if self.accumulate < 1:
            raise SatError(f"optimizer.accumulate={self.accumulate} is under 1")
        if not 0.0 <= self.final_fraction <= 1.0:
            raise SatError(f"optimizer.final_fraction={self.final_fraction} is not in [0, 1]")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """A training run.

    Attributes:
      model: what is trained: a tagger, or a masked autoencoder.
      optimizer: how.
      augment: random changes of the examples.
      num_steps: steps in the whole run, each with one batch.
      seed: of fresh weights and of all that is random in the model.
      head_bias: what the biases of a head that starts fresh begin with, as log odds.
      glorot_init: whether the scale of a fresh matrix follows from its size, which small models
        need; else it is 0.02, as published.
      ema_decay: share that the moving average of the weights keeps in a step; the average is what
        is measured and exported. 0 is none.
      loss_per_chunk: whether each chunk's answer is compared with the target, instead of their
        mean; targets may then differ from chunk to chunk.
      silence_share: share of the examples whose cache holds silence at their start, as a stream's
        does with ``warmup="silence"``; streaming models only.
      frozen_input_norm: whether a tagger's input is normalised by the statistics that its weights
        came with, which then stay, and not by those of each batch.
      fsdp: whether weights and the optimiser's memory are spread over the devices.
      checkpoint_every: steps between two checkpoints.
      checkpoint_minutes: minutes after which one is written anyway; 0 is never.
      keep_checkpoints: how many of the latest are kept, to go on from.
      evaluate_every: steps between two measurements on the validation clips.
      keep_best: how many of the best models are kept, whose average is exported.
      log_every: steps between two lines of the log.
      init: fingerprint of the checkpoint whose weights are begun with; empty where all are random.
        Like `data`, only kept with the run.
      data: what makes the batches, as JSON-ready data; the loop only keeps it with the run, so
        that one is never taken up again with other data by mistake.

    Raises:
      SatError: a value is out of range, or does not suit the model.
    """

    model: AnyConfig
    optimizer: OptimizerConfig
    augment: AugmentConfig = dataclasses.field(default_factory=AugmentConfig)
    num_steps: int
    seed: int = 0
    head_bias: float = 0.0
    glorot_init: bool = False
    ema_decay: float = 0.0
    loss_per_chunk: bool = False
    silence_share: float = 0.0
    frozen_input_norm: bool = False
    fsdp: bool = False
    checkpoint_every: int = 1000
    checkpoint_minutes: float = 0.0
    keep_checkpoints: int = 3
    evaluate_every: int = 1000
    keep_best: int = 4
    log_every: int = 10
    init: str = ""
    data: Mapping[str, Any] = dataclasses.field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        """Refuses values out of range."""
        for name in (
            "num_steps",
            "checkpoint_every",
            "keep_checkpoints",
            "evaluate_every",
            "keep_best",
            "log_every",
        ):
            if getattr(self, name) < 1:
                raise SatError(f"{name}={getattr(self, name)} is under 1")
        if not 0 <= self.seed < 2**32:
            raise SatError(f"seed={self.seed} is not in [0, 2**32)")
        if not math.isfinite(self.head_bias):
            raise SatError(f"head_bias={self.head_bias} is not finite")
        if not 0.0 <= self.ema_decay < 1.0:
            raise SatError(f"ema_decay={self.ema_decay} is not a share in [0, 1)")
        if not self.checkpoint_minutes >= 0.0:
            raise SatError(f"checkpoint_minutes={self.checkpoint_minutes} is under 0")
        if isinstance(self.model, MaeConfig):
            self._check_autoencoder()
        self._check_silence()

    def _check_autoencoder(self) -> None:
        if self.frozen_input_norm:
            raise SatError("frozen_input_norm is for taggers, not for autoencoders: set False")
        if self.optimizer.layer_decay < 1.0:
            raise SatError(
                f"optimizer.layer_decay={self.optimizer.layer_decay} is for taggers, an "
                "autoencoder has no layers far from its head: set 1"
            )

    def _check_silence(self) -> None:
        if not 0.0 <= self.silence_share <= 1.0:
            raise SatError(f"silence_share={self.silence_share} is not in [0, 1]")
        if self.silence_share and not (
            isinstance(self.model, ModelConfig) and self.model.is_streaming
        ):
            raise SatError(
                f"silence_share={self.silence_share} fills a cache that this model lacks: set 0"
            )

    def to_dict(self) -> dict[str, Any]:
        """The config as JSON-ready data; `from_dict` is its inverse."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Builds a config from `to_dict` data.

        Raises:
          SatError: a key is unknown or missing, or a value is out of range.
        """
        fields = dict(data)
        parts = {
            "model": model_from_dict(fields.pop("model", {})),
            "optimizer": build_config(
                OptimizerConfig, fields.pop("optimizer", {}), "the training config's optimizer"
            ),
            "augment": build_config(
                AugmentConfig, fields.pop("augment", {}), "the training config's augment"
            ),
        }
        return build_config(cls, {**fields, **parts}, "the training config")
