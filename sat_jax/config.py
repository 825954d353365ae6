"""What a model is made of, as plain data."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Literal, Self, TypeVar, get_args

from sat_jax.errors import SatError
from sat_jax.field_types import check_types

PATCH_SIZE = 16
"""Side of the square patches, in mel bins and in frames."""

HEAD_WIDTH = 64
"""Features per attention head; the number of heads is width / 64 in every published model."""

MIN_RATE = 1_000
MAX_RATE = 768_000
"""Samples per second that a sound may have, Hz."""

Pooling = Literal["mean", "token", "logit", "dm"]
InputNorm = Literal["batch", "fixed"]
Dtype = Literal["float32", "bfloat16"]
_Config = TypeVar("_Config")
Count = TypeVar("Count", int, Any)
"""A number, or an array of numbers."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class FrontendConfig:
    """Log-mel spectrogram settings; the defaults are those of every published model.

    Attributes:
      sample_rate: samples per second of the waveform.
      n_fft: samples in one FFT and in its periodic Hann window.
      hop_length: samples between the centres of two frames.
      n_mels: mel bands.
      f_min: lower edge of the filterbank, Hz.
      f_max: upper edge of the filterbank, Hz.
      top_db: how far below the loudest value of a recording the floor lies, dB.

    Raises:
      SatError: a value is out of range, or `n_mels` neither 64 nor 128.
    """

    sample_rate: int = 16_000
    n_fft: int = 512
    hop_length: int = 160
    n_mels: int = 64
    f_min: float = 0.0
    f_max: float = 8_000.0
    top_db: float = 120.0

    def __post_init__(self) -> None:
        """Refuses values of wrong types or out of range."""
        check_types(self, "frontend.")
        if self.n_mels not in (64, 128):
            raise SatError(f"frontend.n_mels={self.n_mels} is neither 64 nor 128")
        _check_from_to("frontend.sample_rate", self.sample_rate, MIN_RATE, MAX_RATE)
        # A band needs a bin of the spectrum, and no frame is meant to last longer than a second.
        _check_from_to("frontend.n_fft", self.n_fft, 2 * self.n_mels, self.sample_rate)
        # The edges of a patch, the shortest sound, are mirrored by half an FFT; and between two
        # frames nothing is to be left out.
        shortest_hop = self.n_fft // (2 * PATCH_SIZE) + 1
        _check_from_to("frontend.hop_length", self.hop_length, shortest_hop, self.n_fft)
        if not 0.0 <= self.f_min < self.f_max <= self.sample_rate / 2:
            raise SatError(
                f"frontend.f_min={self.f_min} and frontend.f_max={self.f_max} are no band within "
                f"0 to {self.sample_rate / 2:g} Hz, half the sample rate"
            )
        if not 0.0 < self.top_db < math.inf:
            raise SatError(f"frontend.top_db={self.top_db} is no number above 0")

    def num_frames(self, num_samples: Count) -> Count:
        """Frames of a recording of `num_samples` samples (centred, both edges padded)."""
        return 1 + num_samples // self.hop_length


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """A ViT (``cache_length == 0``) or a SAT (``cache_length > 0``).

    Attributes:
      width: features per token, a multiple of 64.
      depth: transformer blocks.
      num_classes: outputs.
      pooling: how tokens become one answer, see `sat_jax.models.transformer`.
      target_length: frames the model takes in one piece.
      cache_length: frames of past that a streaming model remembers; 0 for a clip model.
      pad_last: whether a shorter last piece of a long input is zero-padded or dropped.
      input_norm: "batch" is BatchNorm over mel bands, "fixed" the constants of the paper's code.
      mlp_ratio: hidden width of the MLP over `width`.
      layer_scale: initial value of LayerScale, or None for a model without it.
      dropout: rate after projections and in the MLP, training only.
      attention_dropout: rate on attention weights, training only.
      drop_path: stochastic depth rate of the last block (rises linearly from 0), training only.
      time_patchout: share of time columns dropped, training of clip models only.
      freq_patchout: share of frequency rows dropped, training of clip models only.
      dtype: precision of the computation on any device; weights are always float32.
      remat: recompute block activations in the backward pass, which saves memory in training.
      frontend: the log-mel spectrogram.

    Raises:
      SatError: a value is out of range or none of its choices.
    """

    width: int
    target_length: int
    depth: int = 12
    num_classes: int = 527
    pooling: Pooling = "mean"
    cache_length: int = 0
    pad_last: bool = False
    input_norm: InputNorm = "batch"
    mlp_ratio: float = 4.0
    layer_scale: float | None = None
    dropout: float = 0.0
    attention_dropout: float = 0.0
    drop_path: float = 0.0
    time_patchout: float = 0.0
    freq_patchout: float = 0.0
    dtype: Dtype = "float32"
    remat: bool = False
    frontend: FrontendConfig = dataclasses.field(default_factory=FrontendConfig)

    def __post_init__(self) -> None:
        """Refuses values of wrong types or out of range."""
        check_types(self)
        _check_multiple("width", self.width, HEAD_WIDTH)
        for name, allowed in (("pooling", Pooling), ("input_norm", InputNorm), ("dtype", Dtype)):
            check_choice(name, getattr(self, name), get_args(allowed))
        for name in ("depth", "num_classes"):
            _check_at_least(name, getattr(self, name), 1)
        _check_at_least("target_length", self.target_length, PATCH_SIZE)
        if self.cache_length < 0 or self.cache_length % PATCH_SIZE:
            raise SatError(
                f"cache_length={self.cache_length} is no number of whole patches: give 0 (a clip "
                f"model) or a multiple of {PATCH_SIZE} frames"
            )
        if not 1.0 <= self.width * self.mlp_ratio < math.inf:
            raise SatError(f"mlp_ratio={self.mlp_ratio} gives an MLP of no width")
        if self.layer_scale is not None and not math.isfinite(self.layer_scale):
            raise SatError(f"layer_scale={self.layer_scale} is not finite")
        for name in _RATES:
            if not 0.0 <= getattr(self, name) < 1.0:
                raise SatError(f"{name}={getattr(self, name)} is not a share in [0, 1)")
        if self.is_streaming and (self.time_patchout or self.freq_patchout):
            raise SatError(
                "patchout would break the cache's grid of tokens: set time_patchout and "
                "freq_patchout to 0 when cache_length > 0"
            )

    @property
    def is_streaming(self) -> bool:
        """Whether the model carries a cache from piece to piece (a SAT)."""
        return self.cache_length > 0

    @property
    def freq_patches(self) -> int:
        """Rows of the patch grid."""
        return self.frontend.n_mels // PATCH_SIZE

    @property
    def time_positions(self) -> int:
        """Learned time positions: those of a piece and, behind them, those of the cache."""
        return (self.target_length + self.cache_length) // PATCH_SIZE

    @property
    def cache_tokens(self) -> int:
        """Tokens per layer that the cache holds when full."""
        return self.freq_patches * (self.cache_length // PATCH_SIZE)

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
        frontend = build_config(FrontendConfig, fields.pop("frontend", {}), "frontend")
        return build_config(cls, {**fields, "frontend": frontend}, "the model's config")


_RATES = ("dropout", "attention_dropout", "drop_path", "time_patchout", "freq_patchout")


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaeConfig:
    """A masked autoencoder: a ViT encoder and a small decoder that paints hidden patches.

    Attributes:
      encoder: the ViT whose weights are kept after pretraining.
      decoder_width: features per decoder token, a multiple of 64.
      decoder_depth: decoder blocks.
      mask_ratio: share of patches that are hidden from the encoder.
      normalize_target: whether each target patch is made zero-mean, unit-variance.

    Raises:
      SatError: a value is out of range, or the encoder is a streaming model.
    """

    encoder: ModelConfig
    decoder_width: int = 512
    decoder_depth: int = 8
    mask_ratio: float = 0.75
    normalize_target: bool = True

    def __post_init__(self) -> None:
        """Refuses values of wrong types or out of range."""
        check_types(self)
        _check_multiple("decoder_width", self.decoder_width, HEAD_WIDTH)
        _check_at_least("decoder_depth", self.decoder_depth, 1)
        if not 0.0 < self.mask_ratio < 1.0:
            raise SatError(f"mask_ratio={self.mask_ratio} is not a share in (0, 1)")
        if self.encoder.is_streaming:
            raise SatError("a masked autoencoder's encoder is a clip model: set cache_length=0")

    @property
    def num_patches(self) -> int:
        """Patches of a full-length input, for which the decoder has positions."""
        return self.encoder.freq_patches * self.encoder.time_positions

    def to_dict(self) -> dict[str, Any]:
        """The config as JSON-ready data; `from_dict` is its inverse."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Builds a config from `to_dict` data.

        Raises:
          SatError: a key is unknown or missing, or a value is out of range.
        """
        fields = {**data, "encoder": ModelConfig.from_dict(data.get("encoder", {}))}
        return build_config(cls, fields, "the autoencoder's config")


AnyConfig = ModelConfig | MaeConfig


def model_from_dict(data: Mapping[str, Any]) -> AnyConfig:
    """Builds a model's config of either kind from its `to_dict` data.

    Raises:
      SatError: a key is unknown or missing, or a value is out of range.
    """
    return MaeConfig.from_dict(data) if "encoder" in data else ModelConfig.from_dict(data)


def build_config(cls: type[_Config], data: Mapping[str, Any], name: str) -> _Config:
    """Builds a dataclass from plain data.

    Args:
      cls: the dataclass.
      data: its fields.
      name: what messages call it.

    Raises:
      SatError: a field is unknown or missing.
    """
    fields = dataclasses.fields(cls)  # type: ignore[arg-type]
    unknown = sorted(set(data) - {field.name for field in fields})
    if unknown:
        raise SatError(f"{name} has no field {', '.join(unknown)}")
    missing = sorted(
        field.name
        for field in fields
        if field.default is dataclasses.MISSING
        and field.default_factory is dataclasses.MISSING
        and field.name not in data
    )
    if missing:
        raise SatError(f"{name} needs a value for {', '.join(missing)}")
    return cls(**data)


def _check_multiple(name: str, value: int, unit: int) -> None:
    if value < unit or value % unit:
        raise SatError(f"{name}={value} is not a positive multiple of {unit}")


def _check_at_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise SatError(f"{name}={value} is under {least}")


def _check_from_to(name: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise SatError(f"{name}={value} is not from {least} to {most}")


def check_choice(name: str, value: object, allowed: tuple[str, ...]) -> None:
    """Refuses a value that is not among those allowed.

    Raises:
      SatError: it is none of them.
    """
    if value not in allowed:
        raise SatError(f"{name}={value!r} is none of {', '.join(allowed)}")
