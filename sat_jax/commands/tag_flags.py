"""The flags that commands which tag share."""

import math

from absl import flags

from sat_jax.weights.catalog import DEFAULT_MODEL


def define_model_flag(flag_values: flags.FlagValues) -> flags.FlagHolder:
    """Defines --model and returns it."""
    return flags.DEFINE_string(
        "model",
        DEFAULT_MODEL,
        "A model's name (see sat-jax models), a checkpoint folder, or a .pt or .safetensors file.",
        short_name="m",
        flag_values=flag_values,
    )


def define_chunk_flag(flag_values: flags.FlagValues) -> flags.FlagHolder:
    """Defines --chunk and returns it."""
    return flags.DEFINE_float(
        "chunk",
        None,
        "Seconds per chunk, which is the delay of a prediction. Default: the model's chunk length.",
        short_name="c",
        lower_bound=0.16,
        upper_bound=3600.0,
        flag_values=flag_values,
    )


def define_tag_flags(
    flag_values: flags.FlagValues,
) -> tuple[flags.FlagHolder, flags.FlagHolder, flags.FlagHolder]:
    """Defines --model, --k and --chunk and returns them."""
    model = define_model_flag(flag_values)
    k = flags.DEFINE_integer(
        "k", 3, "The most tags per chunk.", lower_bound=1, flag_values=flag_values
    )
    return model, k, define_chunk_flag(flag_values)


def parse_threshold(text: str | None) -> float | None:
    """Returns the number in --threshold, if it is one."""
    if text in (None, "auto"):
        return None
    try:
        threshold = float(text)
    except ValueError:
        threshold = math.nan
    if not 0.0 <= threshold <= 1.0:
        raise flags.Error(f"--threshold={text}: use auto or a number from 0 to 1")
    return threshold
