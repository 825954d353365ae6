"""What the training configs share."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from ml_collections import ConfigDict, config_dict

from sat_jax.config import AnyConfig, MaeConfig, ModelConfig
from sat_jax.errors import SatError
from sat_jax.streaming.pieces import plan_pieces
from sat_jax.training.config import TrainConfig

DEBUG = "debug"


def choose(arg: str, names: Sequence[str]) -> tuple[str, bool]:
    """Reads what stands behind the colon of ``--config FILE:ARG``.

    Args:
      arg: a model's name, "debug", or both joined by a comma; perhaps empty.
      names: the models; the first one is meant where none is named.

    Returns:
      The model's name, and whether the run is to be shrunk.

    Raises:
      SatError: there is no such model.
    """
    words = [word for part in arg.split(",") if (word := part.strip())]
    chosen = [word for word in words if word != DEBUG] or [names[0]]
    if len(chosen) > 1 or chosen[0] not in names:
        raise SatError(
            f"{arg!r} is no argument of this config: give one of {', '.join(names)}, and add "
            f"',{DEBUG}' for a run of seconds"
        )
    return chosen[0], DEBUG in words


def training_config(
    name: str, model: AnyConfig | None, *, window_seconds: float | None
) -> ConfigDict:
    """The fields that every stage has, with the values that all published stages share.

    Args:
      name: what the exported model says it is.
      model: what is trained; None is that of ``--init``.
      window_seconds: what it hears of a clip at a time; None is what suits the model.
    """
    return ConfigDict(
        {
            "name": name,
            # Fields of the model; those without a value are those of the model of --init.
            "model": _fields_of_init() if model is None else _model_fields(model),
            "optimizer": {
                # AdamW; the published one was Adam with 8-bit memory.
                "learning_rate": config_dict.required_placeholder(float),
                "warmup_fraction": 0.0,
                "final_fraction": 0.0,
                "weight_decay": 0.0,
                # Ours: far above the usual norm, it only catches accidents.
                "clip_norm": 1.0,
                "b1": 0.9,
                "b2": 0.999,
                "eps": 1e-8,
                "layer_decay": 1.0,
                "accumulate": 1,
            },
            # All off, as published for the stages that were.
            "augment": {
                "time_shift": 0.0,
                "gain_db": 0.0,
                "flip_polarity": False,
                "mixup": 0.0,
                "time_masks": 0,
                "time_mask_frames": 32,
                "freq_masks": 0,
                "freq_mask_bins": 8,
            },
            "data": {
                "batch_size": 32,
                "window_seconds": _placeholder(window_seconds, float),
                # Ours: a clip shorter than the window is repeated, so that its labels hold for
                # every piece; "zeros" appends silence.
                "fill": "wrap",
                "sampler": "shuffle",
                "draws_per_epoch": 200_000,
                # 0 are the clips' own labels, 1 the pseudo strong labels of --psl.
                "psl_share": 0.0,
            },
            "seed": 0,
            "num_epochs": config_dict.required_placeholder(int),
            # Steps of the whole run, where epochs don't suit.
            "num_steps": config_dict.placeholder(int),
            # Log odds of every class that a fresh head begins with. At 0, as published, each has
            # probability 0.5, and long runs soon forget it. In runs of some hundred steps a small
            # model pushes all classes down by making its features alike, and then hears little:
            # -6.3 is one class of 527 in a clip.
            "head_bias": 0.0,
            # Ours: fresh matrices scaled by their size instead of 0.02 for all. At width 128 a
            # clip model's loss fell twice as far in 300 steps.
            "glorot_init": False,
            "ema_decay": 0.0,
            # Improvements on the published recipe, off as there.
            "loss_per_chunk": False,
            "silence_share": 0.0,
            "frozen_input_norm": False,
            "fsdp": False,
            "checkpoint_every": 1000,
            "checkpoint_minutes": 10.0,
            "keep_checkpoints": 2,
            "evaluate_every": 1000,
            "keep_best": 4,
            "log_every": 10,
        }
    )


def _fields_of_init() -> dict[str, Any]:
    """What a config that trains the model of --init may change of it."""
    return {"dtype": _placeholder(None, str), "remat": _placeholder(None, bool)}


def _model_fields(model: AnyConfig) -> dict[str, Any]:
    if isinstance(model, MaeConfig):
        return {**model.to_dict(), "encoder": _model_fields(model.encoder)}
    return {**model.to_dict(), "layer_scale": _placeholder(model.layer_scale, float)}


def _placeholder(value: Any, kind: type) -> Any:
    return config_dict.placeholder(kind) if value is None else value


def shrink(config: ConfigDict) -> ConfigDict:
    """Makes a config run in seconds on a laptop, with all of its parts."""
    transformer = config.model.get("encoder", config.model)
    if "width" in transformer:
        transformer.update(width=64, depth=2)
    if "encoder" in config.model:
        config.model.update(decoder_width=64, decoder_depth=1)
    config.data.batch_size = 8
    config.num_steps = 10
    config.update(checkpoint_every=5, evaluate_every=5, log_every=1)
    return config


def to_model(config: ConfigDict, init: AnyConfig | None, *, num_classes: int | None) -> AnyConfig:
    """The model that a config asks for.

    Args:
      config: from `get_config` of a config file.
      init: the model of ``--init``, whose fields fill those that the config leaves out.
      num_classes: classes of the user's own; None leaves them as they are.

    Raises:
      SatError: a value is out of range, or the model is to be that of --init and there is none.
    """
    fields = config.model.to_dict()
    if "encoder" in fields:
        return MaeConfig.from_dict(fields)
    if "width" not in fields:
        if init is None:
            raise SatError("this config trains the model of --init: name one")
        transformer = init.encoder if isinstance(init, MaeConfig) else init
        said = {name: value for name, value in fields.items() if value is not None}
        fields = {**transformer.to_dict(), **said}
    if num_classes is not None:
        fields["num_classes"] = num_classes
    return ModelConfig.from_dict(fields)


def window_seconds(model: AnyConfig) -> float:
    """Two chunks of a streaming model; 10 s for a clip model, or all that it takes at a time."""
    transformer = model.encoder if isinstance(model, MaeConfig) else model
    if transformer.is_streaming:
        return transformer.target_length / 48  # The spectrogram of 4 s has 2 x 192 frames and more.
    return min(10.0, transformer.target_length / 100)


def num_chunks(model: ModelConfig, seconds: float) -> int:
    """Chunks of a window, which the model hears one by one.

    Args:
      model: what is trained.
      seconds: length of the window.

    Raises:
      SatError: they are not this part of the window each, so targets that are would be of other
        times; or a shorter last chunk would be heard too, which has no target of its own.
    """
    if fits := _whole_chunks(model, seconds):
        return fits
    frame = model.frontend.hop_length / model.frontend.sample_rate
    chunk = model.target_length * frame
    heard = max(round(seconds / chunk), 1) * chunk
    # A published chunk of 2 s has 1.92 s of frames; where a rest is heard too, none may be left.
    tries = (heard / 0.96 if model.is_streaming else heard, heard - frame)
    better = next((each for each in tries if _whole_chunks(model, each)), heard)
    raise SatError(
        f"loss_per_chunk needs a window of whole chunks of {chunk:g} s, and {seconds:g} s is none: "
        f"set --config.data.window_seconds={better:g}"
    )


def _whole_chunks(model: ModelConfig, seconds: float) -> int:
    """Chunks of a window if they fill it but for what the published ones leave out, else 0."""
    frontend = model.frontend
    plan = plan_pieces(model, frontend.num_frames(round(seconds * frontend.sample_rate)))
    heard = plan.num_whole * plan.length * frontend.hop_length / frontend.sample_rate
    return plan.num_whole if not plan.rest and heard >= 0.95 * seconds else 0


def to_train_config(
    config: ConfigDict,
    model: AnyConfig,
    *,
    epoch_size: int,
    data: dict[str, Any],
    init: str = "",
) -> TrainConfig:
    """The run that a config asks for.

    Args:
      config: from `get_config` of a config file.
      model: from `to_model`.
      epoch_size: windows in an epoch.
      data: all that makes the batches, for the run's record.
      init: what the weights begin with, for the same.

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
