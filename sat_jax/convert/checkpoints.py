"""Models from files of weights, and back."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from flax.traverse_util import unflatten_dict

from sat_jax.config import AnyConfig, MaeConfig
from sat_jax.convert.architecture import read_architecture
from sat_jax.convert.tensor_files import read_tensors, write_tensors
from sat_jax.convert.weight_table import Tensors, from_torch, is_learned, to_torch
from sat_jax.errors import SatError
from sat_jax.labels import default_label_names
from sat_jax.models.frontend import mel_filterbank
from sat_jax.models.shapes import weight_shapes
from sat_jax.weights.checkpoint import Checkpoint

_FRONT_END_TOLERANCE = 5e-3
"""Windows and filterbanks have values up to 1, which bfloat16 rounds by up to 2e-3."""

# The published autoencoders have a classifier that is never trained; ours have none.
_UNUSED_HEAD = "encoder.outputlayer."


class Converted(NamedTuple):
    """A model from a file, and notes on the settings that the file does not show."""

    checkpoint: Checkpoint
    notes: list[str]


def convert_file(
    path: str | Path,
    *,
    model: str | None = None,
    settings: Mapping[str, str] | None = None,
    labels: Sequence[str] | None = None,
    part: str | None = None,
) -> Checkpoint:
    """Reads a model from a PyTorch or safetensors file of weights.

    Args:
      path: the file, see `sat_jax.convert.tensor_files.read_tensors`.
      model: name of a model, for settings that the weights do not show, see `read_architecture`.
      settings: config fields as text, for the same.
      labels: class names; by default AudioSet's for 527 classes, else "class 0", "class 1", …
      part: which set of weights to read, for a file with several, such as "model_ema".

    Raises:
      SatError: the file cannot be read, is not a known model, contradicts the arguments, has the
        spectrogram of other settings, or holds NaN or infinity.
    """
    return convert_with_notes(
        path, model=model, settings=settings, labels=labels, part=part
    ).checkpoint


def convert_with_notes(
    path: str | Path,
    *,
    model: str | None = None,
    settings: Mapping[str, str] | None = None,
    labels: Sequence[str] | None = None,
    part: str | None = None,
) -> Converted:
    """Same as `convert_file`, with notes on the settings that the file does not show."""
    tensors = read_tensors(path, part)
    try:
        shapes = {name: array.shape for name, array in tensors.items()}
        config, notes = read_architecture(shapes, model=model, settings=settings)
        _check_shapes(shapes, config)
        _check_front_end(tensors, config)
        names = _label_names(config, labels)
        variables = from_torch(tensors)
    except SatError as error:
        raise SatError(f"{path}: {error}") from error
    checkpoint = Checkpoint(
        config=config, variables=variables, labels=names, source=Path(path).name
    )
    return Converted(checkpoint, notes)


def export_file(checkpoint: Checkpoint, path: str | Path) -> None:
    """Writes a model to a file that the published PyTorch code loads.

    Args:
      checkpoint: the model.
      path: the file, see `sat_jax.convert.tensor_files.write_tensors`.

    Raises:
      SatError: the file cannot be written, or the model holds NaN or infinity.
    """
    learned = to_torch(checkpoint.variables, checkpoint.config)
    write_tensors(path, published_constants(checkpoint.config) | learned)


def published_shapes(config: AnyConfig) -> dict[str, tuple[int, ...]]:
    """Shapes of a model's learned tensors by published name."""
    # One byte per weight, never touched: only the shapes matter.
    blank = {name: np.zeros(shape, np.int8) for name, shape in weight_shapes(config)}
    tensors = to_torch(unflatten_dict(blank, sep="/"), config)
    return {name: array.shape for name, array in tensors.items()}


def published_constants(config: AnyConfig) -> Tensors:
    """Tensors that the published code expects in a file, though no training changes them.

    Returns:
      The front end's window [n_fft] and filterbank [n_fft // 2 + 1, n_mels], BatchNorm's counter
      and, for an autoencoder, the unused classifier.
    """
    encoder = config.encoder if isinstance(config, MaeConfig) else config
    n_fft = encoder.frontend.n_fft
    constants: Tensors = {
        "front_end.0.spectrogram.window": np.hanning(n_fft + 1)[:-1].astype(np.float32),
        "front_end.0.mel_scale.fb": mel_filterbank(encoder.frontend),
    }
    if encoder.input_norm == "batch":
        constants["init_bn.1.num_batches_tracked"] = np.zeros((), np.int64)
    if encoder is config:
        return constants
    constants |= {
        "outputlayer.0.weight": np.ones(encoder.width, np.float32),
        "outputlayer.0.bias": np.zeros(encoder.width, np.float32),
        "outputlayer.1.weight": np.zeros((encoder.num_classes, encoder.width), np.float32),
        "outputlayer.1.bias": np.zeros(encoder.num_classes, np.float32),
    }
    return {f"encoder.{name}": array for name, array in constants.items()}


def _label_names(config: AnyConfig, labels: Sequence[str] | None) -> tuple[str, ...]:
    if isinstance(config, MaeConfig):
        if labels is not None:
            raise SatError("an autoencoder has no classes: leave out the labels")
        return ()
    if labels is None:
        return default_label_names(config.num_classes)
    if len(labels) != config.num_classes:
        raise SatError(f"there are {len(labels)} labels for {config.num_classes} classes")
    return tuple(labels)


def _check_shapes(shapes: Mapping[str, tuple[int, ...]], config: AnyConfig) -> None:
    """Checks that a file has exactly the learned tensors of a model; lists all differences."""
    have = {name: shape for name, shape in shapes.items() if is_learned(name)}
    want = published_shapes(config)
    if isinstance(config, MaeConfig):
        want |= {name: shape for name, shape in have.items() if name.startswith(_UNUSED_HEAD)}
    other_shapes = [
        f"{name} {list(have[name])} instead of {list(want[name])}"
        for name in sorted(have.keys() & want.keys())
        if have[name] != want[name]
    ]
    problems = {
        "missing tensors": sorted(want.keys() - have.keys()),
        "unexpected tensors": sorted(have.keys() - want.keys()),
        "tensors of other shapes than the model's": other_shapes,
    }
    if any(problems.values()):
        listed = (f"{problem}: {', '.join(names)}" for problem, names in problems.items() if names)
        raise SatError("; ".join(listed))


def _check_front_end(tensors: Tensors, config: AnyConfig) -> None:
    """Compares the window and filterbank in a file with those of the config, if it has them."""
    frontend = (config.encoder if isinstance(config, MaeConfig) else config).frontend
    for name, ours in published_constants(config).items():
        stored = tensors.get(name, ours)
        if "front_end." not in name or (
            stored.shape == ours.shape and np.allclose(stored, ours, atol=_FRONT_END_TOLERANCE)
        ):
            continue
        raise SatError(
            f"{name} is not that of sample_rate={frontend.sample_rate}, n_fft={frontend.n_fft}, "
            f"f_min={frontend.f_min:g}, f_max={frontend.f_max:g}: give the model's own by --set, "
            "such as --set f_max=7600"
        )
