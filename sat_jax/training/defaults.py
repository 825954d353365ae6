"""Default values of the training configs, and what the files in configs/ share."""

from collections.abc import Sequence
from typing import Any

from ml_collections import ConfigDict, config_dict

from sat_jax.config import AnyConfig, MaeConfig
from sat_jax.errors import SatError

DEBUG = "debug"


def parse_argument(argument: str, names: Sequence[str]) -> tuple[str, bool]:
    """Parses the part of ``--config FILE:ARGUMENT`` after the colon.

    Args:
      argument: a model's name, "debug", or both with a comma between them; may be empty.
      names: the models of this config; the first is the default.

    Returns:
      The model's name, and whether "debug" was given.

    Raises:
      SatError: the model is not among `names`.
    """
    words = [word for part in argument.split(",") if (word := part.strip())]
    chosen = [word for word in words if word != DEBUG] or [names[0]]
    if len(chosen) > 1 or chosen[0] not in names:
        raise SatError(
            f"{argument!r} is not a model of this config: give one of {', '.join(names)}; add "
            f"',{DEBUG}' for a run of seconds"
        )
    return chosen[0], DEBUG in words


def default_config(
    name: str, model: AnyConfig | None, *, window_seconds: float | None
) -> ConfigDict:
    """Returns the fields of every config, with the values that the published stages share.

    Args:
      name: recorded in the exported model as its source.
      model: the model to train; None for the model of ``--init``.
      window_seconds: length of a training window; None for the default of the model.
    """
    return ConfigDict(
        {
            "name": name,
            # Fields of the model. A field without a value is taken from the model of --init.
            "model": _init_fields() if model is None else _model_fields(model),
            "optimizer": {
                # AdamW; the published recipe used Adam with 8-bit memory.
                "learning_rate": config_dict.required_placeholder(float),
                "warmup_fraction": 0.0,
                "final_fraction": 0.0,
                "weight_decay": 0.0,
                # Not published. Far above the usual norm: it limits outliers only.
                "clip_norm": 1.0,
                "b1": 0.9,
                "b2": 0.999,
                "eps": 1e-8,
                "layer_decay": 1.0,
                "accumulate": 1,
            },
            # All off, as in the published stages.
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
                # Not published. "wrap" repeats a clip that is shorter than the window, so that its
                # labels hold for every chunk; "zeros" appends silence.
                "fill": "wrap",
                "sampler": "shuffle",
                "draws_per_epoch": 200_000,
                # "shards" reads files in large blocks and shuffles in buffer_mb of memory: for
                # remote files of --tfds.
                "read_order": "random",
                "buffer_mb": 2048,
                # Weight of the pseudo strong labels of --psl; the rest goes to the clips' labels.
                "psl_share": 0.0,
            },
            "seed": 0,
            "num_epochs": config_dict.required_placeholder(int),
            # Steps of the whole run; overrides num_epochs.
            "num_steps": config_dict.placeholder(int),
            # Initial log odds of each class in a fresh head. At 0, as published, every class has
            # probability 0.5, which long runs soon unlearn. In runs of some hundred steps a small
            # model lowers all classes by making its features alike, and then learns little:
            # set -6.3 for one class of 527 per clip.
            "head_bias": 0.0,
            # Not published: scales fresh matrices by their size instead of 0.02 for all. At width
            # 128 a clip model's loss fell twice as far in 300 steps.
            "glorot_init": False,
            "ema_decay": 0.0,
            # Not published, so off.
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


def shrink(config: ConfigDict) -> ConfigDict:
    """Shrinks model and run so that the config trains in seconds on a laptop, for debugging."""
    transformer = config.model.get("encoder", config.model)
    if "width" in transformer:
        transformer.update(width=64, depth=2)
    if "encoder" in config.model:
        config.model.update(decoder_width=64, decoder_depth=1)
    config.data.batch_size = 8
    config.num_steps = 10
    config.update(checkpoint_every=5, evaluate_every=5, log_every=1)
    return config


def _init_fields() -> dict[str, Any]:
    """Returns the fields that may be changed in the model of --init."""
    return {"dtype": _placeholder(None, str), "remat": _placeholder(None, bool)}


def _model_fields(model: AnyConfig) -> dict[str, Any]:
    if isinstance(model, MaeConfig):
        return {**model.to_dict(), "encoder": _model_fields(model.encoder)}
    return {**model.to_dict(), "layer_scale": _placeholder(model.layer_scale, float)}


def _placeholder(value: Any, kind: type) -> Any:
    return config_dict.placeholder(kind) if value is None else value
