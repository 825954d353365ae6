"""Framing: how a stream of samples is cut into spectrograms, one for each step."""

import dataclasses
import math
from numbers import Real
from typing import get_args

import jax
import jax.numpy as jnp

from sat_jax.config import PATCH_SIZE, FramingKind, FrontendConfig, ModelConfig, check_choice
from sat_jax.errors import SatError
from sat_jax.models.frontend import floor_top_db, framed_power_db, peak_of, reflect_edges


@dataclasses.dataclass(frozen=True, kw_only=True)
class Framing:
    """The window that collects samples until the model can run; hashable.

    The window's first `margin` samples are the left half of the first frame. When `required`
    samples are filled, the model runs and the window moves on by `hop`.

    Attributes:
      kind: "chunk" computes a spectrogram with reflected edges for each chunk, as published; the
        model ignores frames after the last whole patch. "seamless" computes one continuous
        spectrogram, so that streaming equals clip mode.
      hop: samples from one chunk to the next: the algorithmic delay.
      window: samples of one spectrogram, margins included.
      margin: samples in half an FFT.
      required: filled samples at which the model can run.
    """

    kind: FramingKind
    hop: int
    window: int
    margin: int
    required: int


def default_chunk_seconds(config: ModelConfig) -> float:
    """Returns the chunk length used by default: as published, 2 s for clip models too."""
    if not config.is_streaming:
        return 2.0
    return max(config.target_length / 96, _patch_samples(config) / config.frontend.sample_rate)


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
    margin, hop_length = frontend.n_fft // 2, frontend.hop_length
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
        return Framing(
            kind=kind,
            hop=samples,
            window=samples + 2 * margin,
            margin=margin,
            required=samples + margin,
        )
    frames = samples // shortest * PATCH_SIZE
    if frames > config.target_length:
        longest = config.target_length * hop_length / frontend.sample_rate
        raise SatError(
            f"a seamless chunk of {seconds:g} s is longer than the model's {longest:g} s: give a "
            "shorter one, or use chunk framing"
        )
    window = (frames - 1) * hop_length + frontend.n_fft
    return Framing(
        kind=kind, hop=frames * hop_length, window=window, margin=margin, required=window
    )


def chunk_spectrogram(
    window: jax.Array,
    chunks: jax.Array,
    peak_db: jax.Array,
    *,
    framing: Framing,
    frontend: FrontendConfig,
) -> tuple[jax.Array, jax.Array]:
    """Computes the log-mel spectrogram of a full window.

    Args:
      window: float32 [b, s], s = framing.window.
      chunks: int32 [b], chunks that the stream has completed before.
      peak_db: float32 [b], loudest value of the stream so far. The floor of seamless framing
        follows it, since the rest of the recording is not known yet.
      framing: of the stream.
      frontend: spectrogram settings.

    Returns:
      float32 dB [b, f, t], and the new `peak_db`.
    """
    margin = framing.margin
    if framing.kind == "chunk":
        inside = window[:, margin:-margin]
        window = jnp.pad(inside, ((0, 0), (margin, margin)), mode="reflect")
        power_db = framed_power_db(window, frontend)
        return floor_top_db(power_db, power_db.max((1, 2)), frontend), peak_db
    at_start = jnp.pad(window[:, margin:], ((0, 0), (margin, 0)), mode="reflect")
    window = jnp.where((chunks == 0)[:, None], at_start, window)
    power_db = framed_power_db(window, frontend)
    peak_db = jnp.maximum(peak_db, power_db.max((1, 2)))
    return floor_top_db(power_db, peak_db, frontend), peak_db


def last_spectrogram(
    window: jax.Array,
    filled: jax.Array,
    chunks: jax.Array,
    peak_db: jax.Array,
    *,
    framing: Framing,
    frontend: FrontendConfig,
) -> jax.Array:
    """Computes the log-mel spectrogram of a window that the end of a stream left partly filled.

    Args:
      window: float32 [b, s], s = framing.window.
      filled: int32 [b], samples in the window, the margin included.
      chunks: int32 [b], chunks that the stream has completed before.
      peak_db: float32 [b], see `chunk_spectrogram`.
      framing: of the stream.
      frontend: spectrogram settings.

    Returns:
      float32 dB [b, f, t]; the first 1 + (filled - margin) // hop_length frames are real.
    """
    starts_here = (chunks == 0) | (framing.kind == "chunk")
    # A stream that ends just short of the next frame gets that frame by its mirror image.
    window = jnp.pad(window, ((0, 0), (0, frontend.hop_length)))
    mirrored = reflect_edges(window, jnp.where(starts_here, framing.margin, 0), filled)
    power_db = framed_power_db(mirrored, frontend)
    peak = peak_of(power_db, frontend.num_frames(filled - framing.margin))
    if framing.kind == "seamless":
        peak = jnp.maximum(peak, peak_db)
    return floor_top_db(power_db, peak, frontend)
