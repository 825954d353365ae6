"""MobileNetV3-large on spectrograms, as pure functions.

Source: Howard et al., "Searching for MobileNetV3" (2019), table 1. Maps are [f, t, c]: frequency
bands, frames, channels. Batch norm is folded into the weights, and every convolution is a sum of
shifted maps or a matrix product: XLA's own convolution by channel is five times slower on CPUs.
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

STRIDES = (1, 2, 1, 2, 1, 1, 2, 1, 1, 1, 1, 1, 2, 1, 1)
"""Stride of each block, along frequency and time."""

_FIRST_HARD_SWISH = 6
"""Index of the first block with hard swish; earlier ones have ReLU."""

_NORM_EPSILON = 1e-3


class Affine(NamedTuple):
    """Weights of a convolution or a linear layer.

    Attributes:
      kernel: float32 [height, width, c] to filter each channel, or a matrix [c_in, c_out].
      bias: float32 [c].
    """

    kernel: jax.Array
    bias: jax.Array


class Squeeze(NamedTuple):
    """Squeeze-excitation: scales channels by a function of their means."""

    reduce: Affine
    expand: Affine


class Block(NamedTuple):
    """An inverted residual block; `expand` and `squeeze` may be missing."""

    expand: Affine | None
    depthwise: Affine
    squeeze: Squeeze | None
    project: Affine


class Network(NamedTuple):
    """All weights, in the order of use."""

    stem: Affine
    blocks: tuple[Block, ...]
    last: Affine
    hidden: Affine
    output: Affine


def read_network(tensors: Mapping[str, np.ndarray]) -> Network:
    """Takes the weights from a state dict with torchvision's names of layers.

    Args:
      tensors: float32 arrays by name.
    """
    return Network(
        stem=_convolution(tensors, "features.0"),
        blocks=tuple(
            _block(tensors, f"features.{index}.block") for index in range(1, len(STRIDES) + 1)
        ),
        last=_convolution(tensors, f"features.{len(STRIDES) + 1}"),
        hidden=_linear(tensors, "classifier.2"),
        output=_linear(tensors, "classifier.5"),
    )


def _block(tensors: Mapping[str, np.ndarray], name: str) -> Block:
    # Only the first block has no expansion: its first kernel filters each channel.
    first = 0 if tensors[f"{name}.0.0.weight"].shape[1] == 1 else 1
    squeeze = f"{name}.{first + 1}.conc_se_layers.0"
    has_squeeze = f"{squeeze}.fc1.weight" in tensors
    return Block(
        expand=_convolution(tensors, f"{name}.0") if first else None,
        depthwise=_convolution(tensors, f"{name}.{first}"),
        squeeze=Squeeze(*(_linear(tensors, f"{squeeze}.{each}") for each in ("fc1", "fc2")))
        if has_squeeze
        else None,
        project=_convolution(tensors, f"{name}.{first + 1 + has_squeeze}"),
    )


def _convolution(tensors: Mapping[str, np.ndarray], name: str) -> Affine:
    """Returns a convolution with its batch norm: one filter per channel, or 1 x 1."""
    scale = tensors[f"{name}.1.weight"] / np.sqrt(tensors[f"{name}.1.running_var"] + _NORM_EPSILON)
    bias = tensors[f"{name}.1.bias"] - scale * tensors[f"{name}.1.running_mean"]
    kernel = (scale[:, None, None, None] * tensors[f"{name}.0.weight"]).transpose(2, 3, 1, 0)
    is_filter = kernel.shape[2] == 1
    return Affine(jnp.asarray(kernel[:, :, 0] if is_filter else kernel[0, 0]), jnp.asarray(bias))


def _linear(tensors: Mapping[str, np.ndarray], name: str) -> Affine:
    return Affine(jnp.asarray(tensors[f"{name}.weight"].T), jnp.asarray(tensors[f"{name}.bias"]))


def logits(network: Network, log_mel: jax.Array, num_frames: jax.Array | int) -> jax.Array:
    """Classifies a spectrogram.

    Args:
      network: the weights.
      log_mel: float32 [f, t].
      num_frames: frames that count; later ones change nothing.

    Returns:
      float32 [y].
    """
    x = _filter(network.stem, log_mel[..., None], 2, num_frames)
    x, num_frames = _hard_swish(x), _halved(num_frames)
    for index, (block, stride) in enumerate(zip(network.blocks, STRIDES, strict=True)):
        activation = jax.nn.relu if index < _FIRST_HARD_SWISH else _hard_swish
        y = x if block.expand is None else activation(_product(block.expand, x))
        y = activation(_filter(block.depthwise, y, stride, num_frames))
        num_frames = num_frames if stride == 1 else _halved(num_frames)
        if block.squeeze is not None:
            squeezed = jax.nn.relu(_product(block.squeeze.reduce, _mean(y, num_frames)))
            y = y * jax.nn.sigmoid(_product(block.squeeze.expand, squeezed))
        y = _product(block.project, y)
        x = x + y if x.shape == y.shape else y
    pooled = _mean(_hard_swish(_product(network.last, x)), num_frames)
    return _product(network.output, _hard_swish(_product(network.hidden, pooled)))


def _product(weights: Affine, x: jax.Array) -> jax.Array:
    return jnp.matmul(x, weights.kernel, precision="highest") + weights.bias


def _filter(weights: Affine, x: jax.Array, stride: int, num_frames: jax.Array | int) -> jax.Array:
    """Filters each channel; zeros surround the frames that count."""
    size = weights.kernel.shape[0]
    rows, columns = (-(-length // stride) for length in x.shape[:2])
    half = size // 2
    padded = jnp.pad(_silenced(x, num_frames), ((half, half), (half, half), (0, 0)))
    total = weights.bias
    for i in range(size):
        for j in range(size):
            shifted = padded[i:, j:][: stride * rows : stride, : stride * columns : stride]
            total = total + weights.kernel[i, j] * shifted
    return total


def _mean(x: jax.Array, num_frames: jax.Array | int) -> jax.Array:
    return _silenced(x, num_frames).sum(axis=(0, 1)) / (x.shape[0] * num_frames)


def _silenced(x: jax.Array, num_frames: jax.Array | int) -> jax.Array:
    return jnp.where(jnp.arange(x.shape[1])[:, None] < num_frames, x, 0.0)


def _halved(num_frames: jax.Array | int) -> jax.Array | int:
    return (num_frames + 1) // 2


def _hard_swish(x: jax.Array) -> jax.Array:
    return x * jnp.clip(x + 3.0, 0.0, 6.0) / 6.0
