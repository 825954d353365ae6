"""The flags of stream mode that `tag` and `evaluate` share."""

from typing import get_args

from absl import flags

from sat_jax.config import FramingKind, Warmup


def define_stream_flags(
    flag_values: flags.FlagValues,
) -> tuple[flags.FlagHolder, flags.FlagHolder]:
    """Defines --warmup and --framing and returns them."""
    warmup = flags.DEFINE_enum(
        "warmup",
        "silence",
        get_args(Warmup),
        "Stream mode: start with a cache of silence, or with an empty one.",
        flag_values=flag_values,
    )
    framing = flags.DEFINE_enum(
        "framing",
        "chunk",
        get_args(FramingKind),
        "Stream mode: a spectrogram per chunk, as published, or one continuous spectrogram.",
        flag_values=flag_values,
    )
    return warmup, framing
