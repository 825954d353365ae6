"""Framing: how a stream of samples is cut into spectrograms, one for each step."""

import dataclasses
import math
from numbers import Real
from typing import get_args

import jax
import jax.numpy as jnp

from sat_jax.config import PATCH_SIZE, FramingKind, FrontendConfig, ModelConfig, check_choice
from sat_jax.errors import SatError
from sat_jax.models.frontend import floor_top_db, framed_power_db


@dataclasses.dataclass(frozen=True, kw_only=True)
class Framing:
    """How a stream is cut into windows, one for each step; hashable.

    A window holds the samples of one chunk and those around it that its spectrogram needs. The next
    window begins `hop` samples later.

    Attributes:
      kind: "chunk" computes a spectrogram with reflected edges for each chunk, as published; the
        model ignores frames after the last whole patch. "seamless" computes one continuous
        spectrogram, so that streaming equals clip mode.
      hop: samples from one chunk to the next: the algorithmic delay.
      window: samples of one window: `hop` with chunk framing.
      margin: samples of a window before its chunk: 0 with chunk framing, else half an FFT.
    """

    kind: FramingKind
    hop: int
    window: int
    margin: int


def default_chunk_seconds(config: ModelConfig) -> float:
    """Returns the chunk length used by default: as published, 2 s for clip models too."""
    if not config.is_streaming:
        return 2.0
    return max(config.target_length / 96, _patch_samples(config) / config.frontend.sample_rate)


def half_patch_seconds(config: ModelConfig) -> float:
    """Returns the seconds under which a chunk is mostly padding."""
    return _patch_samples(config) / config.frontend.sample_rate / 2


def _patch_samples(config: ModelConfig) -> int:
    return PATCH_SIZE * config.frontend.hop_length


def make_framing(
    config: ModelConfig, kind: FramingKind = "chunk", *, chunk_seconds: float | None = None
) -> Framing:
    """Returns the framing of a model's streams.

    Args:
      config: the model.
      kind: see `Framing`.
      chunk_seconds: length of a chunk, at least 0.16 s; None is `default_chunk_seconds`. Seamless
        framing rounds it down to whole patches, so that 2 s become 1.92 s.

    Raises:
      SatError: the chunk is shorter than a patch, or with seamless framing longer than the model's
        `target_length`.
    """
    check_choice("framing", kind, get_args(FramingKind))
    seconds = default_chunk_seconds(config) if chunk_seconds is None else chunk_seconds
    frontend = config.frontend
    hop_length = frontend.hop_length
    if not (isinstance(seconds, Real) and math.isfinite(seconds)):
        raise SatError(f"the chunk length {seconds!r} is not a number: give seconds")
    samples = round(seconds * frontend.sample_rate)
    shortest = _patch_samples(config)
    if samples < shortest:
        raise SatError(
            f"a chunk of {seconds:g} s is shorter than a patch: give at least "
            f"{shortest / frontend.sample_rate:g} s"
        )
    if kind == "chunk":
        return Framing(kind=kind, hop=samples, window=samples, margin=0)
    frames = samples // shortest * PATCH_SIZE
    if frames > config.target_length:
        longest = config.target_length * hop_length / frontend.sample_rate
        raise SatError(
            f"a seamless chunk of {seconds:g} s is longer than the model's {longest:g} s: give a "
            "shorter one, or use chunk framing"
        )
    return Framing(
        kind=kind,
        hop=frames * hop_length,
        window=(frames - 1) * hop_length + frontend.n_fft,
        margin=frontend.n_fft // 2,
    )


def chunk_spectrogram(
    window: jax.Array, peak_db: jax.Array, *, framing: Framing, frontend: FrontendConfig
) -> tuple[jax.Array, jax.Array]:
    """Computes the log-mel spectrogram of a window.

    Args:
      window: float32 [b, s], s = framing.window.
      peak_db: float32 [b], loudest value of the stream so far. The floor of seamless framing
        follows it, since the rest of the recording is not known yet.
      framing: of the stream.
      frontend: spectrogram settings.

    Returns:
      float32 dB [b, f, t], and the new `peak_db`.
    """
    if framing.kind == "chunk":
        half = frontend.n_fft // 2
        window = jnp.pad(window, ((0, 0), (half, half)), mode="reflect")
        power_db = framed_power_db(window, frontend)
        return floor_top_db(power_db, power_db.max((1, 2)), frontend), peak_db
    power_db = framed_power_db(window, frontend)
    peak_db = jnp.maximum(peak_db, power_db.max((1, 2)))
    return floor_top_db(power_db, peak_db, frontend), peak_db
