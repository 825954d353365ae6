"""Model settings as plain data."""

import dataclasses
import functools
import math
import types
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any, Literal, Self, TypeVar, get_args, get_origin, get_type_hints

from sat_jax.errors import SatError, require

PATCH_SIZE = 16
"""Side of the square patches, in mel bins and in frames."""

HEAD_WIDTH = 64
"""Features per attention head; the number of heads is width / 64 in every published model."""

MIN_RATE = 1_000
MAX_RATE = 768_000
"""Sample rates that are accepted, Hz."""

Pooling = Literal["mean", "token", "logit", "dm"]
InputNorm = Literal["batch", "fixed"]
Dtype = Literal["float32", "bfloat16"]
Mode = Literal["stream", "clip"]
"""How a recording is tagged: chunk by chunk, or as a whole."""
ModeName = Literal["stream", "chunks", "sliding", "clip"]
"""How a clip is scored in an evaluation, see `sat_jax.evaluation.modes.Mode`."""
FramingKind = Literal["chunk", "seamless"]
"""How a stream is cut into spectrograms, see `sat_jax.streaming.framing.Framing`."""
Warmup = Literal["silence", "none"]
"""What the cache of a new stream holds: silence, or nothing."""
Aggregation = Literal["mean", "max", "last"]
"""How several predictions become one."""
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
      SatError: a value has the wrong type or is out of range.
    """

    sample_rate: int = 16_000
    n_fft: int = 512
    hop_length: int = 160
    n_mels: int = 64
    f_min: float = 0.0
    f_max: float = 8_000.0
    top_db: float = 120.0

    def __post_init__(self) -> None:
        """Checks types and ranges."""
        _check_types(self, "frontend.")
        require(self.n_mels in (64, 128), f"frontend.n_mels={self.n_mels}: use 64 or 128")
        _check_range("frontend.sample_rate", self.sample_rate, MIN_RATE, MAX_RATE)
        # Each mel band needs a bin of the spectrum, and a frame lasts at most a second.
        _check_range("frontend.n_fft", self.n_fft, 2 * self.n_mels, self.sample_rate)
        # The shortest sound, a patch, is mirrored by half an FFT at its edges. Frames leave no gap.
        shortest_hop = self.n_fft // (2 * PATCH_SIZE) + 1
        _check_range("frontend.hop_length", self.hop_length, shortest_hop, self.n_fft)
        require(
            0.0 <= self.f_min < self.f_max <= self.sample_rate / 2,
            f"frontend.f_min={self.f_min}, frontend.f_max={self.f_max}: use a band within 0 to "
            f"{self.sample_rate / 2:g} Hz, half the sample rate",
        )
        require(
            0.0 < self.top_db < math.inf, f"frontend.top_db={self.top_db}: use a number above 0"
        )

    def num_frames(self, num_samples: Count) -> Count:
        """Returns the frames of `num_samples` samples (centred, both edges padded)."""
        return 1 + num_samples // self.hop_length


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """A ViT (``cache_length == 0``) or a SAT (``cache_length > 0``).

    Attributes:
      width: features per token, a multiple of 64.
      depth: transformer blocks.
      num_classes: outputs.
      pooling: how tokens are reduced to one output: "mean" over tokens, "token" for the cls token,
        "logit" for the mean with logits as output, "dm" for the mean over time of probabilities.
      target_length: frames that the model takes in one piece.
      cache_length: frames of past in a streaming model's cache; 0 for a clip model.
      pad_last: whether a shorter last piece of a long input is zero-padded or dropped.
      input_norm: "batch" for BatchNorm over mel bands, "fixed" for the constants of the paper's
        code.
      mlp_ratio: hidden width of the MLP, as a multiple of `width`.
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
      SatError: a value has the wrong type or is out of range.
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
        """Checks types and ranges."""
        _check_types(self)
        _check_multiple("width", self.width, HEAD_WIDTH)
        _check_range("depth", self.depth, 1)
        _check_range("num_classes", self.num_classes, 1)
        _check_range("target_length", self.target_length, PATCH_SIZE)
        require(
            self.cache_length >= 0 and self.cache_length % PATCH_SIZE == 0,
            f"cache_length={self.cache_length}: use 0 for a clip model, or a multiple of "
            f"{PATCH_SIZE} frames",
        )
        require(
            1.0 <= self.width * self.mlp_ratio < math.inf,
            f"mlp_ratio={self.mlp_ratio}: use a finite number of at least 1 / width",
        )
        require(
            self.layer_scale is None or math.isfinite(self.layer_scale),
            f"layer_scale={self.layer_scale}: use a finite number, or None",
        )
        for name in _RATES:
            rate = getattr(self, name)
            require(0.0 <= rate < 1.0, f"{name}={rate}: use a share from 0 to below 1")
        require(
            not self.is_streaming or self.time_patchout == self.freq_patchout == 0.0,
            f"time_patchout={self.time_patchout}, freq_patchout={self.freq_patchout}: use 0 with a "
            "cache, whose grid of tokens patchout would break",
        )

    @property
    def is_streaming(self) -> bool:
        """Whether the model carries a cache from piece to piece: a SAT."""
        return self.cache_length > 0

    @property
    def freq_patches(self) -> int:
        """Rows of the patch grid."""
        return self.frontend.n_mels // PATCH_SIZE

    @property
    def time_positions(self) -> int:
        """Learned time positions: those of a piece, then those of the cache."""
        return (self.target_length + self.cache_length) // PATCH_SIZE

    @property
    def cache_tokens(self) -> int:
        """Tokens per layer in a full cache."""
        return self.freq_patches * (self.cache_length // PATCH_SIZE)

    def to_dict(self) -> dict[str, Any]:
        """Returns the config as JSON-ready data; `from_dict` is its inverse."""
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
    """A masked autoencoder: a ViT encoder and a small decoder that predicts masked patches.

    Attributes:
      encoder: the ViT; only its weights are used after pretraining.
      decoder_width: features per decoder token, a multiple of 64.
      decoder_depth: decoder blocks.
      mask_ratio: share of patches that are masked.
      normalize_target: whether each target patch gets zero mean and unit variance.

    Raises:
      SatError: a value is out of range, or the encoder is a streaming model.
    """

    encoder: ModelConfig
    decoder_width: int = 512
    decoder_depth: int = 8
    mask_ratio: float = 0.75
    normalize_target: bool = True

    def __post_init__(self) -> None:
        """Checks types and ranges."""
        _check_types(self)
        _check_multiple("decoder_width", self.decoder_width, HEAD_WIDTH)
        _check_range("decoder_depth", self.decoder_depth, 1)
        require(
            0.0 < self.mask_ratio < 1.0,
            f"mask_ratio={self.mask_ratio}: use a share above 0 and below 1",
        )
        require(
            not self.encoder.is_streaming,
            f"encoder.cache_length={self.encoder.cache_length}: use 0, since an autoencoder has no "
            "cache",
        )

    @property
    def num_patches(self) -> int:
        """Patches of a full-length input, for which the decoder has positions."""
        return self.encoder.freq_patches * self.encoder.time_positions

    def to_dict(self) -> dict[str, Any]:
        """Returns the config as JSON-ready data; `from_dict` is its inverse."""
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
      name: its name in messages.

    Raises:
      SatError: a field is unknown or missing.
    """
    fields = dataclasses.fields(cls)  # type: ignore[arg-type]
    unknown = sorted(set(data) - {field.name for field in fields})
    if unknown:
        raise SatError(f"{name} has no field {', '.join(unknown)}: remove it")
    missing = sorted(
        field.name
        for field in fields
        if field.default is dataclasses.MISSING
        and field.default_factory is dataclasses.MISSING
        and field.name not in data
    )
    if missing:
        raise SatError(f"{name} lacks {', '.join(missing)}: add it")
    return cls(**data)


def check_choice(name: str, value: object, allowed: tuple[str, ...]) -> None:
    """Raises `SatError` if a value is not one of those allowed."""
    require(value in allowed, f"{name}={value!r}: use one of {', '.join(allowed)}")


def _check_multiple(name: str, value: int, unit: int) -> None:
    require(
        value >= unit and value % unit == 0, f"{name}={value}: use a positive multiple of {unit}"
    )


def _check_range(name: str, value: int, least: int, most: float = math.inf) -> None:
    limits = f"from {least} to {most}" if most < math.inf else f"of at least {least}"
    require(least <= value <= most, f"{name}={value}: use a number {limits}")


_TYPES: dict[Any, tuple[type, str]] = {
    bool: (bool, "true or false"),
    int: (Integral, "a whole number"),
    float: (Real, "a number"),
}


def _check_types(config: Any, prefix: str = "") -> None:
    """Raises `SatError` if a field has another type than its annotation: configs come from JSON.

    Args:
      config: a dataclass of numbers, bools, literals and other dataclasses, each perhaps None.
      prefix: put before the names of fields in messages.
    """
    for name, hint in _hints(config.__class__):
        value = getattr(config, name)
        if isinstance(hint, types.UnionType):  # `X | None`; there are no others.
            if value is None:
                continue
            hint = get_args(hint)[0]
        if get_origin(hint) is Literal:
            check_choice(f"{prefix}{name}", value, get_args(hint))
            continue
        kind, words = _TYPES.get(hint, (hint, f"a {hint.__name__}"))
        is_valid = isinstance(value, kind) and isinstance(value, bool) == (kind is bool)
        require(is_valid, f"{prefix}{name}={value!r}: use {words}")


@functools.cache
def _hints(kind: type) -> list[tuple[str, Any]]:
    return list(get_type_hints(kind).items())
