"""Saves what a model is before it learns.

python -m recipes.first_models clip audiotransformer_xs runs/mae/model runs/vit_start
python -m recipes.first_models stream SAT_XS_2s runs/vit/model runs/start

The first is where a short training of a clip model starts. The second, to measure how much a
streaming model learned: `random` in the folder has random weights, `warm` those of the clip model.
"""

import math
import sys
from pathlib import Path

import jax
import numpy as np

from sat_jax.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from sat_jax.errors import SatError
from sat_jax.labels import default_label_names
from sat_jax.models.registry import model_config
from sat_jax.report.files import naming_file
from sat_jax.warm_start import fresh_variables, start_from


def save_clip_start(name: str, autoencoder: Path, folder: Path) -> None:
    """Writes a clip model with an autoencoder's encoder, and a head that expects one class of all.

    With biases of 0 every class begins at probability 0.5. Hundreds of steps then only push all of
    them down, which a small model does by making all of its features alike; from there it hears no
    difference between sounds for very long.

    Args:
      name: the clip model's, in the registry.
      autoencoder: checkpoint folder.
      folder: where to.

    Raises:
      SatError: the models don't fit, or the folder can't be written.
    """
    config = model_config(name)
    variables, _ = start_from(load_checkpoint(autoencoder), config, jax.random.key(0))
    bias = variables["params"]["head"]["bias"]
    variables["params"]["head"]["bias"] = np.full_like(bias, -math.log(config.num_classes - 1))
    labels = tuple(default_label_names(config.num_classes))
    checkpoint = Checkpoint(config=config, variables=variables, labels=labels, source="first")
    save_checkpoint(folder, checkpoint)


def save_stream_starts(name: str, clip_model: Path, folder: Path) -> None:
    """Writes ``folder/random`` and ``folder/warm``.

    Args:
      name: the streaming model's, in the registry.
      clip_model: checkpoint folder of the model to start from.
      folder: where to; appears when both are complete.

    Raises:
      SatError: the models don't fit, or the folder can't be written.
    """
    config, source = model_config(name), load_checkpoint(clip_model)
    key = jax.random.key(0)
    random = jax.jit(fresh_variables, static_argnums=0)(config, key)
    warm, _ = start_from(source, config, key)
    new = folder.with_name(folder.name + ".new")
    with naming_file(folder):
        for kind, variables in (("random", random), ("warm", warm)):
            checkpoint = Checkpoint(
                config=config, variables=variables, labels=source.labels, source=f"{name}, {kind}"
            )
            if not (new / kind).exists():
                save_checkpoint(new / kind, checkpoint)
        new.rename(folder)


if __name__ == "__main__":
    try:
        save = {"clip": save_clip_start, "stream": save_stream_starts}[sys.argv[1]]
        save(sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]))
    except SatError as error:
        sys.exit(f"first_models: {error}")
