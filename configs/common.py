"""What the configs of all stages share.

A config has the fields of `sat_jax.training.config.TrainConfig`, but says in epochs how long the
run is: only the table of clips tells how many steps that makes. So fields are set alike from a
config file, from the command line (``--config.optimizer.learning_rate=1e-4``) and in tests.
"""

from collections.abc import Sequence
from typing import Any

from ml_collections import ConfigDict, config_dict

from sat_jax.config import ModelConfig
from sat_jax.errors import SatError
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


def training_config(name: str, model: ModelConfig, *, window_seconds: float) -> ConfigDict:
    """The fields that every stage has, with the values that all published stages share.

    Args:
      name: what the exported model says it is.
      model: what is trained.
      window_seconds: what it hears of a clip at a time.
    """
    fields = model.to_dict()
    if model.layer_scale is None:
        fields["layer_scale"] = config_dict.placeholder(float)
    return ConfigDict(
        {
            "name": name,
            "model": fields,
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
            },
            "data": {
                "batch_size": 32,
                "window_seconds": window_seconds,
                # Ours: a clip shorter than the window is repeated, so that its labels hold for
                # every piece; "zeros" appends silence.
                "fill": "wrap",
            },
            "seed": 0,
            "num_epochs": config_dict.required_placeholder(int),
            # Steps of the whole run, where epochs don't suit.
            "num_steps": config_dict.placeholder(int),
            "checkpoint_every": 1000,
            "keep_checkpoints": 3,
            "log_every": 10,
        }
    )


def shrink(config: ConfigDict) -> ConfigDict:
    """Makes a config run in seconds on a laptop, with all of its parts."""
    config.model.update(width=64, depth=2)
    config.data.batch_size = 4
    config.num_steps = 10
    config.update(checkpoint_every=5, log_every=1)
    return config


def to_train_config(config: ConfigDict, *, num_clips: int, data: dict[str, Any]) -> TrainConfig:
    """The run that a config asks for.

    Args:
      config: from `get_config` of a config file.
      num_clips: clips in an epoch.
      data: more of what makes the batches, for the run's record.

    Raises:
      SatError: a value is out of range.
    """
    fields = config.to_dict()
    fields.pop("name")
    num_epochs, num_steps = fields.pop("num_epochs"), fields.pop("num_steps")
    if num_steps is None:
        num_steps = -(-num_epochs * num_clips // config.data.batch_size)
    fields["data"] |= data
    return TrainConfig.from_dict({**fields, "num_steps": num_steps})
