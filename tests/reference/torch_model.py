"""The reference: eager PyTorch models that compute the same as the JAX models.

Parameter names are those of the published checkpoints, so `load_state_dict` takes their files.
Dropout, stochastic depth and patchout are left out, since the comparisons run without them.

Shape letters: b batch, s samples, f mel bins or frequency patches, t frames or time patches,
n tokens, m cached tokens, d width, h heads, l layers, y classes.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

SAMPLE_RATE = 16_000
HOP = 160
N_FFT = 512
N_MELS = 64
PATCH = 16
FREQ_PATCHES = N_MELS // PATCH
HEAD_WIDTH = 64

Pooling = Literal["mean", "token", "logit", "dm"]
Aggregation = Literal["mean", "max", "last"]
Cache = tuple[Tensor, ...]
"""Per layer [b, m, d] residual tokens, or [b, m, 2d] keys and values."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of a model, named as in the published constructors.

    Attributes:
      embed_dim: features per token, a multiple of 64; heads are 64 wide.
      target_length: frames taken in one piece; longer input is split.
      cache_length: frames of the past that a streaming model remembers, 0 for a clip model.
      depth: blocks.
      outputdim: classes.
      pooling: how the tokens of a piece are reduced to one output; "logit" has no sigmoid.
      init_bn: BatchNorm of the input, or else fixed constants.
      init_values: initial LayerScale, or None for none.
      pad_last: whether a shorter last piece is zero-padded or dropped.
    """

    embed_dim: int
    target_length: int
    cache_length: int = 0
    depth: int = 12
    outputdim: int = 527
    pooling: Pooling = "mean"
    init_bn: bool = True
    init_values: float | None = None
    pad_last: bool = False


def mel_filterbank() -> Tensor:
    """Triangles equally spaced on the HTK mel scale up to 8 kHz, peak 1, as float32 [257, 64]."""
    top = 2595.0 * np.log10(1.0 + SAMPLE_RATE / 2 / 700.0)
    corners = 700.0 * (10.0 ** (np.linspace(0.0, top, N_MELS + 2) / 2595.0) - 1.0)
    bins = np.linspace(0.0, SAMPLE_RATE / 2, N_FFT // 2 + 1)[:, None]
    rising = (bins - corners[:-2]) / (corners[1:-1] - corners[:-2])
    falling = (corners[2:] - bins) / (corners[2:] - corners[1:-1])
    return torch.from_numpy(np.maximum(0.0, np.minimum(rising, falling)).astype(np.float32))


class Spectrogram(nn.Module):
    """Power spectrogram: waveform [b, s] -> [b, 257, t], t = 1 + s // 160."""

    window: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("window", torch.hann_window(N_FFT, periodic=True))

    def forward(self, waveform: Tensor) -> Tensor:
        spectrum = torch.stft(waveform, N_FFT, HOP, window=self.window, return_complex=True)
        return spectrum.real.square() + spectrum.imag.square()


class MelScale(nn.Module):
    """Power spectrogram [b, 257, t] -> mel spectrogram [b, 64, t]."""

    fb: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("fb", mel_filterbank())

    def forward(self, power: Tensor) -> Tensor:
        return self.fb.T @ power


class MelSpectrogram(nn.Module):
    """Waveform [b, s] -> mel spectrogram [b, 64, t]."""

    def __init__(self) -> None:
        super().__init__()
        self.spectrogram = Spectrogram()
        self.mel_scale = MelScale()

    def forward(self, waveform: Tensor) -> Tensor:
        return self.mel_scale(self.spectrogram(waveform))


class AmplitudeToDB(nn.Module):
    """Power -> dB, [b, f, t]; at most 120 dB under the maximum of the same example."""

    def forward(self, power: Tensor) -> Tensor:
        decibels = 10.0 * power.clamp(min=1e-10).log10()
        return torch.maximum(decibels, decibels.amax((-2, -1), keepdim=True) - 120.0)


class FixedNorm(nn.Module):
    """The input normalisation of models without BatchNorm, for 64 mel bands."""

    def forward(self, log_mel: Tensor) -> Tensor:
        return (log_mel + 10.0) / 40.0


class PatchEmbed(nn.Module):
    """Log-mel [b, 64, t] -> patches [b, d, 4, t // 16]; leftover frames are dropped."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(1, width, PATCH, stride=PATCH)

    def forward(self, log_mel: Tensor) -> Tensor:
        return self.proj(log_mel[:, None])


class LayerScale(nn.Module):
    """Multiplies each feature by a learned factor."""

    def __init__(self, width: int, init_value: float) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((width,), init_value))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class Mlp(nn.Module):
    """Two linear layers, four times as wide in between, with an exact GELU."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Unmasked attention in heads of 64: [b, n, d], [b, m, d], [b, m, d] -> [b, n, d]."""
    heads = (x.unflatten(-1, (-1, HEAD_WIDTH)).transpose(1, 2) for x in (query, key, value))
    return F.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2)


class SelfAttention(nn.Module):
    """Attention of the clip model, with query, key and value fused in one weight."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(attend(*self.qkv(x).chunk(3, -1)))


class CachedAttention(nn.Module):
    """Attention of the streaming model: queries from the chunk, keys from past and chunk."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.to_q = nn.Linear(width, width)
        self.to_kv = nn.Linear(width, 2 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, key_value: Tensor) -> Tensor:
        return self.proj(attend(self.to_q(x), *key_value.chunk(2, -1)))


class _Block(nn.Module):
    """The common part of both models' pre-norm blocks."""

    def __init__(self, config: Config, attn: nn.Module) -> None:
        super().__init__()
        width, init_values = config.embed_dim, config.init_values
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = attn
        self.ls1 = nn.Identity() if init_values is None else LayerScale(width, init_values)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = Mlp(width)
        self.ls2 = nn.Identity() if init_values is None else LayerScale(width, init_values)

    def _residuals(self, x: Tensor, attended: Tensor) -> Tensor:
        x = x + self.ls1(attended)
        return x + self.ls2(self.mlp(self.norm2(x)))


class Block(_Block):
    """Block of the clip model, [b, n, d] -> [b, n, d]."""

    def __init__(self, config: Config) -> None:
        super().__init__(config, SelfAttention(config.embed_dim))

    def forward(self, x: Tensor) -> Tensor:
        return self._residuals(x, self.attn(self.norm1(x)))


class StreamingBlock(_Block):
    """Block of the streaming model, [b, n, d] and a cache -> [b, n, d] and the next cache."""

    attn: CachedAttention

    def __init__(self, config: Config, *, cache_kv: bool) -> None:
        super().__init__(config, CachedAttention(config.embed_dim))
        self.capacity = FREQ_PATCHES * (config.cache_length // PATCH)
        self.prefix = int(config.pooling == "token")  # a cls token is attended to, never cached
        self.cache_kv = cache_kv

    def forward(self, x: Tensor, cache: Tensor) -> tuple[Tensor, Tensor]:
        if self.cache_kv:
            query = self.norm1(x)
            fresh = self.attn.to_kv(query)
            key_value = torch.cat((cache, fresh), 1)
        else:
            normed = self.norm1(torch.cat((cache, x), 1))
            query, fresh = normed[:, cache.shape[1] :], x
            key_value = self.attn.to_kv(normed)
        return self._residuals(x, self.attn(query, key_value)), self._roll(cache, fresh)

    def _roll(self, cache: Tensor, fresh: Tensor) -> Tensor:
        """Returns the last `capacity` tokens of cache and chunk, without gradient."""
        fresh = fresh[:, self.prefix :]
        if fresh.shape[1] < self.capacity:
            fresh = torch.cat((cache, fresh), 1)
        return fresh[:, -self.capacity :].detach()


class _Transformer(nn.Module):
    """The common part of both models: all before and after the blocks."""

    def __init__(self, config: Config, blocks: Sequence[_Block]) -> None:
        super().__init__()
        self.config = config
        self.pooling = config.pooling
        width = config.embed_dim
        time_positions = (config.target_length + config.cache_length) // PATCH
        if config.pooling == "token":
            self.cls_token = nn.Parameter(torch.empty(1, 1, width))
            self.token_pos_embed = nn.Parameter(torch.empty(1, width))
        self.time_pos_embed = nn.Parameter(torch.empty(1, width, 1, time_positions))
        self.freq_pos_embed = nn.Parameter(torch.empty(1, width, FREQ_PATCHES, 1))
        self.front_end = nn.Sequential(MelSpectrogram(), AmplitudeToDB())
        # BatchNorm is entry 1 of the published module, whose entry 0 is a transposition.
        batch_norm = nn.Sequential(nn.Identity(), nn.BatchNorm1d(N_MELS, momentum=0.01))
        self.init_bn = batch_norm if config.init_bn else FixedNorm()
        self.patch_embed = PatchEmbed(width)
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.outputlayer = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, config.outputdim))
        self._init_weights()

    def _init_weights(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        for name, parameter in self.named_parameters(recurse=False):
            nn.init.normal_(parameter, std=1e-6 if name == "cls_token" else 0.02)

    def log_mel(self, waveform: Tensor) -> Tensor:
        """Waveform [b, s] in [-1, 1] -> normalised log-mel [b, 64, 1 + s // 160]."""
        with torch.autocast(waveform.device.type, enabled=False):
            return self.init_bn(self.front_end(waveform))

    def embed(self, log_mel: Tensor) -> Tensor:
        """Log-mel piece [b, 64, t] -> tokens [b, n, d], frequency-major behind a cls token."""
        patches = self.patch_embed(log_mel)
        patches = patches + self.time_pos_embed[..., : patches.shape[-1]] + self.freq_pos_embed
        # Contiguous: otherwise every LayerNorm of the residual stream starts with a copy.
        tokens = patches.flatten(2).transpose(1, 2).contiguous()
        if self.pooling != "token":
            return tokens
        cls = (self.cls_token + self.token_pos_embed).expand(tokens.shape[0], -1, -1)
        return torch.cat((cls, tokens), 1)

    def classify(self, features: Tensor) -> Tensor:
        """Features after the last norm [b, n, d] -> probabilities (or logits) [b, y]."""
        if self.pooling == "token":
            return self.outputlayer(features[:, 0]).sigmoid()
        if self.pooling == "dm":
            steps = features.unflatten(1, (FREQ_PATCHES, -1)).mean(1)
            return self.outputlayer(steps).sigmoid().mean(1)
        logits = self.outputlayer(features.mean(1))
        return logits if self.pooling == "logit" else logits.sigmoid()


class ViT(_Transformer):
    """Clip model: waveform [b, s] -> probabilities (or logits) [b, y]."""

    def __init__(self, config: Config) -> None:
        super().__init__(config, [Block(config) for _ in range(config.depth)])

    def forward(self, waveform: Tensor, aggregation: Literal["mean", "max"] = "mean") -> Tensor:
        pieces = self._pieces(self.log_mel(waveform))  # [b, k, f, t]
        outputs = self._piece(pieces.flatten(0, 1)).unflatten(0, pieces.shape[:2])
        return _aggregate(outputs, aggregation)

    def _pieces(self, log_mel: Tensor) -> Tensor:
        length, frames = self.config.target_length, log_mel.shape[-1]
        if frames < length + PATCH:
            # Frames beyond the last time position are dropped.
            return log_mel[:, None, :, : self.time_pos_embed.shape[-1] * PATCH]
        if self.config.pad_last:
            log_mel = F.pad(log_mel, (0, -frames % length))
        return log_mel.unfold(-1, length, length).transpose(1, 2)

    def _piece(self, log_mel: Tensor) -> Tensor:
        x = self.embed(log_mel)
        for block in self.blocks:
            x = block(x)
        return self.classify(self.norm(x))


class SAT(_Transformer):
    """Streaming model: waveform [b, s] and the cache of earlier chunks -> scores and cache.

    Args:
      config: what the model is made of; `cache_length` is at least 16.
      kv_cache: whether layers after the first cache projected keys and values, which gives the
        same scores in fewer operations. Not for training: what `to_kv` and `norm1` learn from
        cached tokens is lost.
    """

    def __init__(self, config: Config, *, kv_cache: bool = False) -> None:
        # At every step, positions are added again to the first layer's cached tokens.
        layers = range(config.depth)
        super().__init__(
            config, [StreamingBlock(config, cache_kv=kv_cache and i > 0) for i in layers]
        )

    def init_cache(self, batch_size: int, warmup: Literal["silence", "none"] = "silence") -> Cache:
        """Returns the cache before the first chunk: after silence, or empty."""
        empty = self.freq_pos_embed.new_empty(batch_size, 0, self.norm.weight.shape[0])
        cache = tuple(torch.cat((empty, empty), -1) if b.cache_kv else empty for b in self.blocks)
        if warmup == "none":
            return cache
        silence = empty.new_zeros(batch_size, self.config.cache_length * HOP)
        return self.forward_chunk(silence, cache)[1]

    def forward_chunk(self, waveform: Tensor, cache: Cache) -> tuple[Tensor, Cache]:
        """Runs a streaming step: chunk [b, s] and cache -> scores [b, y] and the next cache."""
        outputs, cache = self._outputs(waveform, cache)
        return _aggregate(outputs, "mean"), cache

    def forward_clip(self, waveform: Tensor, aggregation: Aggregation = "mean") -> Tensor:
        """Scores whole recordings from an empty cache: [b, s] -> [b, y]."""
        outputs, _ = self._outputs(waveform, self.init_cache(waveform.shape[0], "none"))
        return _aggregate(outputs, aggregation)

    def encode(self, log_mel: Tensor, cache: Cache) -> tuple[Tensor, Cache]:
        """Normalised log-mel piece [b, 64, t] -> features [b, n, d] and the next cache."""
        x = self.embed(log_mel)
        caches = (cache[0] + self._cache_positions(cache[0].shape[1]), *cache[1:])
        following = []
        for block, past in zip(self.blocks, caches, strict=True):
            x, past = block(x, past)
            following.append(past)
        return self.norm(x), tuple(following)

    def _outputs(self, waveform: Tensor, cache: Cache) -> tuple[Tensor, Cache]:
        outputs = []
        for piece in self._pieces(self.log_mel(waveform)):
            features, cache = self.encode(piece, cache)
            outputs.append(self.classify(features))
        return torch.stack(outputs, 1), cache

    def _pieces(self, log_mel: Tensor) -> list[Tensor]:
        *full, last = log_mel.split(self.config.target_length, -1)
        if last.shape[-1] == self.config.target_length or not full:
            return [*full, last]
        if not self.config.pad_last:
            return full
        return [*full, F.pad(last, (0, -last.shape[-1] % PATCH))]

    def _cache_positions(self, cached: int) -> Tensor:
        """Returns the positions of the first layer's cached tokens, taken as a grid: [1, m, d]."""
        start = self.time_pos_embed.shape[-1] - cached // FREQ_PATCHES
        positions = self.time_pos_embed[..., start:] + self.freq_pos_embed
        return positions.flatten(2).transpose(1, 2)


def _aggregate(outputs: Tensor, aggregation: Aggregation) -> Tensor:
    """Reduces the scores of pieces: [b, k, y] -> [b, y]."""
    if aggregation == "last":
        return outputs[:, -1]
    return outputs.amax(1) if aggregation == "max" else outputs.mean(1)


_TINY: dict[str, Any] = {"embed_dim": 192}
_SMALL: dict[str, Any] = {"embed_dim": 384, "pooling": "token"}
_BASE: dict[str, Any] = {"embed_dim": 768}
_CLIP: dict[str, Any] = {"target_length": 1012, "pad_last": True}
_2S: dict[str, Any] = {"target_length": 192, "cache_length": 192}
_1S: dict[str, Any] = {"target_length": 96, "cache_length": 96}

MODELS: dict[str, Config] = {
    "audiotransformer_tiny": Config(**_TINY, **_CLIP),
    "audiotransformer_small": Config(**_SMALL, **_CLIP),
    "audiotransformer_base": Config(**_BASE, **_CLIP),
    "SAT_T_2s": Config(**_TINY, **_2S),
    "SAT_S_2s": Config(**_SMALL, **_2S),
    "SAT_B_2s": Config(**_BASE, **_2S),
    "SAT_T_1s": Config(**_TINY, **_1S),
    "SAT_S_1s": Config(**_SMALL, **_2S),  # published with the lengths of the 2 s model
    "SAT_B_1s": Config(**_BASE, **_1S),
}
"""The published models by name."""


def build(name: str, *, kv_cache: bool = False) -> ViT | SAT:
    """Builds a published model with random weights.

    Args:
      name: one of `MODELS`.
      kv_cache: as for `SAT`; a clip model has no cache and ignores it.

    Raises:
      KeyError: there is no such model.
    """
    config = MODELS[name]
    return SAT(config, kv_cache=kv_cache) if config.cache_length else ViT(config)
