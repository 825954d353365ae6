"""Whole models from files of weights, and back."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from flax.traverse_util import flatten_dict

from sat_jax.config import AnyConfig, MaeConfig
from sat_jax.convert.architecture import read_architecture
from sat_jax.convert.files import read_tensors, write_tensors
from sat_jax.convert.names import (
    Tensors,
    canonical_names,
    check_complete,
    from_torch,
    is_learned,
    nest,
    to_torch,
)
from sat_jax.errors import SatError
from sat_jax.labels import default_label_names
from sat_jax.models.frontend import mel_filterbank
from sat_jax.weights.checkpoint import Checkpoint
from sat_jax.weights.warm_start import fresh_variables

# The published autoencoders carry a classifier that is never trained; ours have none of their own.
_IDLE_HEAD = "encoder.outputlayer."


class Converted(NamedTuple):
    """A model made from a file, and what was taken for granted, in sentences."""

    checkpoint: Checkpoint
    notes: list[str]


def convert_file(
    path: str | Path,
    *,
    model: str | None = None,
    settings: Mapping[str, str] | None = None,
    labels: Sequence[str] | None = None,
) -> Checkpoint:
    """Reads a PyTorch or safetensors file of weights as a model.

    Args:
      path: the file, see `sat_jax.convert.files.read_tensors`.
      model: a model's name, for what the weights don't show, see `read_architecture`.
      settings: config fields as text, for the same.
      labels: names of the classes; None means AudioSet's, or "class 0", …, by their number.

    Raises:
      SatError: the file can't be read, is of no known model, or contradicts the arguments.
    """
    return convert_with_notes(path, model=model, settings=settings, labels=labels).checkpoint


def convert_with_notes(
    path: str | Path,
    *,
    model: str | None = None,
    settings: Mapping[str, str] | None = None,
    labels: Sequence[str] | None = None,
) -> Converted:
    """Same as `convert_file`, and tells what was taken for granted."""
    tensors = read_tensors(path)
    try:
        tensors = canonical_names(tensors)
        shapes = {name: array.shape for name, array in tensors.items()}
        config, notes = read_architecture(shapes, model=model, settings=settings)
        _check_shapes(shapes, config)
        names = _label_names(config, labels)
    except SatError as error:
        raise SatError(f"{path}: {error}") from error
    variables = nest(from_torch(tensors))
    source = Path(path).name
    return Converted(
        Checkpoint(config=config, variables=variables, labels=names, source=source), notes
    )


def export_file(checkpoint: Checkpoint, path: str | Path) -> None:
    """Writes a model as a file that the published PyTorch code loads.

    Args:
      checkpoint: the model.
      path: the file, see `sat_jax.convert.files.write_tensors`.

    Raises:
      SatError: the file can't be written.
    """
    flat = flatten_dict(checkpoint.variables, sep="/")
    learned = to_torch({name: np.asarray(x) for name, x in flat.items()}, checkpoint.config)
    write_tensors(path, published_constants(checkpoint.config) | learned)


def published_shapes(config: AnyConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a model's learned tensors as published."""
    leaves = flatten_dict(
        jax.eval_shape(partial(fresh_variables, config), jax.random.key(0)), sep="/"
    )
    # Bytes in place of weights: only their layout is of interest.
    blank = {name: np.zeros(leaf.shape, np.int8) for name, leaf in leaves.items()}
    return {name: array.shape for name, array in to_torch(blank, config).items()}


def published_constants(config: AnyConfig) -> Tensors:
    """What the published code wants in a file though no training changes it.

    Returns:
      The front end's window [n_fft] and filterbank [n_fft // 2 + 1, n_mels], BatchNorm's counter
      and, in an autoencoder, the classifier that it never uses.
    """
    encoder = config.encoder if isinstance(config, MaeConfig) else config
    n_fft = encoder.frontend.n_fft
    constants: Tensors = {
        "front_end.0.spectrogram.window": np.hanning(n_fft + 1)[:-1].astype(np.float32),
        "front_end.0.mel_scale.fb": mel_filterbank(encoder.frontend),
    }
    if encoder.input_norm == "batch":
        constants["init_bn.1.num_batches_tracked"] = np.zeros((), np.int64)
    if encoder is not config:
        constants |= {
            "outputlayer.0.weight": np.ones(encoder.width, np.float32),
            "outputlayer.0.bias": np.zeros(encoder.width, np.float32),
            "outputlayer.1.weight": np.zeros((encoder.num_classes, encoder.width), np.float32),
            "outputlayer.1.bias": np.zeros(encoder.num_classes, np.float32),
        }
    prefix = "" if encoder is config else "encoder."
    return {prefix + name: array for name, array in constants.items()}


def _label_names(config: AnyConfig, labels: Sequence[str] | None) -> tuple[str, ...]:
    if isinstance(config, MaeConfig):
        if labels is not None:
            raise SatError("an autoencoder has no classes, and so no labels")
        return ()
    if labels is None:
        return default_label_names(config.num_classes)
    if len(labels) != config.num_classes:
        raise SatError(f"{len(labels)} labels are given for {config.num_classes} classes")
    return tuple(labels)


def _check_shapes(shapes: Mapping[str, tuple[int, ...]], config: AnyConfig) -> None:
    """Checks that a file has all of a model's learned tensors, and no others."""
    have = {name: shape for name, shape in shapes.items() if is_learned(name)}
    want = published_shapes(config)
    if isinstance(config, MaeConfig):
        want |= {name: shape for name, shape in have.items() if name.startswith(_IDLE_HEAD)}
    check_complete(have, want)
    odd = [
        f"{name} {list(shape)} instead of {list(want[name])}"
        for name, shape in have.items()
        if shape != want[name]
    ]
    if odd:
        raise SatError(f"tensors of other shapes than the model's: {', '.join(odd)}")
