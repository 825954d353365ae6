"""The typed config of a training run."""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

from sat_jax.config import AnyConfig, MaeConfig, ModelConfig, build_config, model_from_dict
from sat_jax.errors import SatError
from sat_jax.training.augment import AugmentConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """Settings of AdamW and of its learning rate schedule.

    Attributes:
      learning_rate: maximum, reached at the end of the warm-up.
      warmup_fraction: share of the run in which the learning rate rises linearly from 0.
      final_fraction: final learning rate over the maximum, reached along half a cosine.
      weight_decay: decoupled and scaled by the learning rate; see `decay_mask`.
      clip_norm: largest global L2 norm of the gradients; 0 turns clipping off.
      b1: decay of the first moment.
      b2: decay of the second moment.
      eps: added to the root of the second moment.
      layer_decay: learning rate of a block relative to that of the next block; the head has the
        full rate. 1 is the same rate for all; 0 trains only the head and the norms before it.
      accumulate: number of steps whose gradients are averaged for one update.

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
        """Checks the values."""
        check = functools.partial(_check, self, prefix="optimizer.")
        check(["learning_rate", "eps"], lambda x: x > 0, "above 0")
        check(["weight_decay", "clip_norm"], lambda x: x >= 0, "0 or more")
        check(["warmup_fraction", "b1", "b2"], lambda x: 0 <= x < 1, "in [0, 1)")
        check(["final_fraction", "layer_decay"], lambda x: 0 <= x <= 1, "in [0, 1]")
        check(["accumulate"], lambda x: x >= 1, "at least 1")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """A training run.

    Attributes:
      model: the model to train: a tagger or a masked autoencoder.
      optimizer: the optimiser.
      augment: data augmentation.
      num_steps: number of steps in the whole run, one batch each.
      seed: seed of fresh weights and of all randomness in the model.
      head_bias: initial biases of a fresh head, as log odds.
      glorot_init: whether fresh matrices are scaled by their size, which small models need;
        otherwise the scale is 0.02, as published.
      ema_decay: decay of a moving average of the weights, which is then validated and exported; 0
        for none.
      loss_per_chunk: whether each chunk's output is compared with the target, which may differ from
        chunk to chunk. Otherwise their mean is.
      silence_share: share of the examples that start with silence in the cache, like a stream with
        ``warmup="silence"``; streaming models only.
      frozen_input_norm: whether a tagger's input is normalised by the statistics of its initial
        weights, which stay unchanged. Otherwise the statistics of each batch are used.
      fsdp: whether weights and optimiser state are sharded over the devices.
      checkpoint_every: number of steps between two checkpoints.
      checkpoint_minutes: longest time between two checkpoints, minutes; 0 for no limit.
      keep_checkpoints: how many of the latest checkpoints are kept.
      evaluate_every: number of steps between two validations.
      keep_best: how many of the best models are kept; their average is exported.
      log_every: number of steps between two lines of the log.
      init: fingerprint of the initial weights; empty if they are random. Like `data` it is only
        recorded, so that a run is not resumed with other ones by mistake.
      data: settings and fingerprints of the training data, JSON-ready.

    Raises:
      SatError: a value is out of range or does not suit the model.
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
        """Checks the values."""
        counts = ["num_steps", "checkpoint_every", "keep_checkpoints", "evaluate_every"]
        counts += ["keep_best", "log_every"]
        _check(self, counts, lambda x: x >= 1, "at least 1")
        _check(self, ["seed"], lambda x: 0 <= x < 2**32, "in [0, 2**32)")
        _check(self, ["head_bias"], math.isfinite, "finite")
        _check(self, ["ema_decay"], lambda x: 0 <= x < 1, "in [0, 1)")
        _check(self, ["checkpoint_minutes"], lambda x: x >= 0, "0 or more")
        _check(self, ["silence_share"], lambda x: 0 <= x <= 1, "in [0, 1]")
        if isinstance(self.model, MaeConfig):
            self._check_autoencoder()
        streaming = isinstance(self.model, ModelConfig) and self.model.is_streaming
        if self.silence_share and not streaming:
            raise SatError(
                f"silence_share={self.silence_share} is only for streaming models: set 0"
            )

    def _check_autoencoder(self) -> None:
        if self.frozen_input_norm:
            raise SatError(
                "frozen_input_norm=True is only for taggers: set False for an autoencoder"
            )
        if self.optimizer.layer_decay < 1.0:
            raise SatError(
                f"optimizer.layer_decay={self.optimizer.layer_decay} is only for taggers: set 1 "
                "for an autoencoder"
            )

    def to_dict(self) -> dict[str, Any]:
        """Returns the config as JSON-ready data; `from_dict` is the inverse."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Returns the config of `to_dict` data.

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


def _check(
    config: Any,
    names: Sequence[str],
    is_valid: Callable[[Any], bool],
    wanted: str,
    *,
    prefix: str = "",
) -> None:
    """Raises `SatError` if one of the named values is not as wanted."""
    for name in names:
        value = getattr(config, name)
        if not is_valid(value):
            raise SatError(f"{prefix}{name}={value} is not {wanted}")
