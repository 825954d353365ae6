"""Finds a model by name or path: bundled, published, a checkpoint folder or a weight file."""

import functools
import os
from pathlib import Path
from typing import Any

import jax
import numpy as np

from sat_jax.config import ModelConfig
from sat_jax.errors import SatError
from sat_jax.labels import default_label_names
from sat_jax.models.registry import MODELS, model_config
from sat_jax.models.transformer import init_variables
from sat_jax.runtime.devices import check_devices
from sat_jax.runtime.program_store import ProgramStore, open_store
from sat_jax.weights.catalog import bundled_folder
from sat_jax.weights.checkpoint import Checkpoint, is_checkpoint, load_checkpoint


@functools.partial(jax.jit, static_argnums=0)
def _init_variables(config: ModelConfig, words: jax.Array) -> Any:
    """Returns fresh weights. Stored programs take a key's words, since they take plain arrays."""
    return init_variables(config, jax.random.wrap_key_data(words, impl="threefry2x32"))


def find_checkpoint(name_or_path: str | Path) -> Checkpoint:
    """Loads a checkpoint.

    Args:
      name_or_path: the name of the bundled model or of a published one (downloaded once, then
        cached), a checkpoint folder, or a PyTorch or safetensors file.

    Raises:
      SatError: there is no such model, or it cannot be downloaded, read or used.
    """
    models = ", ".join(MODELS)
    if not (isinstance(name_or_path, (str, os.PathLike)) and str(name_or_path)):
        raise SatError(
            f"{name_or_path!r} is not a model: give a file, a checkpoint folder or one of {models}"
        )
    path, name = Path(name_or_path), str(name_or_path)
    # A run's folder may have the name of the model that it trains, and is not a checkpoint.
    if is_checkpoint(path) or (os.path.isdir(path) and name not in MODELS):
        return load_checkpoint(path)
    if os.path.isfile(path):
        from sat_jax.convert import convert_file

        return convert_file(path)
    if (folder := bundled_folder(name)) is not None:
        return load_checkpoint(folder)
    if name in MODELS:
        from sat_jax.convert import load_published

        return load_published(name)
    raise SatError(
        f"{name_or_path} is not a file, a checkpoint folder or a model; the models are {models}"
    )


def random_checkpoint(
    name: str, seed: int = 0, *, programs: ProgramStore | None = None
) -> Checkpoint:
    """Returns a named model with random weights, to try programs without any.

    Args:
      name: a model's name.
      seed: of the weights.
      programs: keeps the compiled program for the next start; None keeps none on disk.

    Raises:
      SatError: no model has this name, or JAX has no device.
    """
    config = model_config(name)
    check_devices()
    words = np.array([0, seed], np.uint32)
    variables = (programs or open_store(None)).run(_init_variables, (config,), words)
    labels = default_label_names(config.num_classes)
    return Checkpoint(config=config, variables=variables, labels=labels, source="random weights")
