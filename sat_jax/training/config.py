"""What a training run is made of, as plain data (floor 4)."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Self, TypeVar

from sat_jax.config import ModelConfig
from sat_jax.errors import SatError

_Config = TypeVar("_Config")


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
    """

    learning_rate: float
    warmup_fraction: float = 0.0
    final_fraction: float = 0.0
    weight_decay: float = 0.0
    clip_norm: float = 0.0
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8

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
        if not 0.0 <= self.final_fraction <= 1.0:
            raise SatError(f"optimizer.final_fraction={self.final_fraction} is not in [0, 1]")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """A training run.

    Attributes:
      model: what is trained.
      optimizer: how.
      num_steps: updates in the whole run.
      seed: of fresh weights and of all that is random in the model.
      checkpoint_every: updates between two checkpoints.
      keep_checkpoints: how many of the latest are kept.
      log_every: updates between two lines of the log.
      data: what makes the batches, as JSON-ready data; the loop only keeps it with the run, so
        that one is never taken up again with other data by mistake.
    """

    model: ModelConfig
    optimizer: OptimizerConfig
    num_steps: int
    seed: int = 0
    checkpoint_every: int = 1000
    keep_checkpoints: int = 3
    log_every: int = 10
    data: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuses values out of range."""
        for name in ("num_steps", "checkpoint_every", "keep_checkpoints", "log_every"):
            if getattr(self, name) < 1:
                raise SatError(f"{name}={getattr(self, name)} is under 1")
        if not 0 <= self.seed < 2**32:
            raise SatError(f"seed={self.seed} is not in [0, 2**32)")

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
        model = ModelConfig.from_dict(fields.pop("model", {}))
        optimizer = _build(OptimizerConfig, fields.pop("optimizer", {}), "optimizer.")
        return _build(cls, {**fields, "model": model, "optimizer": optimizer}, "")


def _build(cls: type[_Config], data: Mapping[str, Any], prefix: str) -> _Config:
    known = {field.name for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    unknown = sorted(prefix + name for name in set(data) - known)
    if unknown:
        raise SatError(f"the training config has no field {', '.join(unknown)}")
    try:
        return cls(**data)
    except TypeError as error:  # names the missing fields
        raise SatError(f"the training config is incomplete: {error}") from error
