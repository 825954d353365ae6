"""Turns a config into a typed training run."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from sat_jax.config import AnyConfig, MaeConfig, ModelConfig
from sat_jax.errors import SatError
from sat_jax.streaming.pieces import plan_pieces
from sat_jax.training.config import TrainConfig


def trains_init(config: ConfigDict) -> bool:
    """Returns whether a config trains the model of ``--init`` instead of one of its own."""
    return not {"width", "encoder"} & set(config.model)


def to_model(config: ConfigDict, init: AnyConfig | None, *, num_classes: int | None) -> AnyConfig:
    """Returns the model that a config trains.

    Args:
      config: from `get_config` of a config file.
      init: the model of ``--init``; its fields are used where the config has none.
      num_classes: number of the user's own classes; None keeps the model's.

    Raises:
      SatError: a value is out of range, or the config needs ``--init``.
    """
    fields = config.model.to_dict()
    if "encoder" in fields:
        return MaeConfig.from_dict(fields)
    if trains_init(config):
        if init is None:
            raise SatError("this config trains the model of --init: give --init")
        changes = {name: value for name, value in fields.items() if value is not None}
        fields = {**_transformer(init).to_dict(), **changes}
    if num_classes is not None:
        fields["num_classes"] = num_classes
    return ModelConfig.from_dict(fields)


def to_train_config(
    config: ConfigDict,
    model: AnyConfig,
    *,
    epoch_size: int,
    data: Mapping[str, Any],
    init: str = "",
) -> TrainConfig:
    """Returns the training run that a config describes.

    Args:
      config: from `get_config` of a config file.
      model: from `to_model`.
      epoch_size: windows in an epoch.
      data: what determines the batches, recorded in the run's config.json.
      init: fingerprint of the initial weights, recorded there too.

    Raises:
      SatError: a value is out of range.
    """
    fields = config.to_dict()
    for name in ("name", "model"):
        fields.pop(name)
    num_epochs, num_steps = fields.pop("num_epochs"), fields.pop("num_steps")
    if num_steps is None:
        num_steps = -(-num_epochs * epoch_size // config.data.batch_size)
    fields |= {"num_steps": num_steps, "model": dataclasses.asdict(model)}
    fields |= {"data": data, "init": init}
    return TrainConfig.from_dict(fields)


def default_window_seconds(model: AnyConfig) -> float:
    """Returns two chunks of a streaming model; for a clip model 10 s, or its longest input."""
    transformer = _transformer(model)
    if transformer.is_streaming:
        return transformer.target_length / 48  # The log-mel of 4 s has at least 2 x 192 frames.
    return min(10.0, transformer.target_length / 100)


def num_chunks(model: ModelConfig, seconds: float) -> int:
    """Returns the number of chunks in a window, for targets chunk by chunk.

    Args:
      model: the model to train.
      seconds: length of the window.

    Raises:
      SatError: the window is not a whole number of chunks. Then a target would cover other times
        than its chunk, or a shorter last chunk would have no target.
    """
    if chunks := _whole_chunks(model, seconds):
        return chunks
    frame = model.frontend.hop_length / model.frontend.sample_rate
    chunk = model.target_length * frame
    scored = round(seconds / chunk) * chunk
    # A published chunk of 2 s has 1.92 s of frames. With pad_last no frame may be left over.
    tries = (scored / 0.96 if model.is_streaming else scored, scored - frame)
    better = next((each for each in tries if _whole_chunks(model, each)), scored)
    raise SatError(
        f"loss_per_chunk needs windows of whole chunks of {chunk:g} s, and data.window_seconds is "
        f"{seconds:g}: set --config.data.window_seconds={better:g}"
    )


def _whole_chunks(model: ModelConfig, seconds: float) -> int:
    """Returns how many whole chunks fill a window, up to the share that published ones drop."""
    frontend = model.frontend
    plan = plan_pieces(model, frontend.num_frames(round(seconds * frontend.sample_rate)))
    scored = plan.num_whole * plan.length * frontend.hop_length / frontend.sample_rate
    return plan.num_whole if not plan.rest and scored >= 0.95 * seconds else 0


def _transformer(model: AnyConfig) -> ModelConfig:
    return model.encoder if isinstance(model, MaeConfig) else model
