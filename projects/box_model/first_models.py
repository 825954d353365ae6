"""Saves what a streaming model is before it learns, to measure how much it did learn.

python -m projects.box_model.first_models SAT_XS_2s runs/vit/model runs/start

`random` in the folder has random weights, `warm` those of the clip model.
"""

import sys
from pathlib import Path

import jax

from sat_jax.errors import SatError
from sat_jax.models.registry import model_config
from sat_jax.runtime.files import explain_write_errors
from sat_jax.weights.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from sat_jax.weights.warm_start import fresh_variables, start_from


def save_first_models(name: str, clip_model: Path, folder: Path) -> None:
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
    with explain_write_errors(folder):
        for kind, variables in (("random", random), ("warm", warm)):
            checkpoint = Checkpoint(
                config=config, variables=variables, labels=source.labels, source=f"{name}, {kind}"
            )
            if not (new / kind).exists():
                save_checkpoint(new / kind, checkpoint)
        new.rename(folder)


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit("usage: python -m projects.box_model.first_models NAME CLIP_MODEL_FOLDER FOLDER")
    try:
        save_first_models(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
    except SatError as error:
        sys.exit(f"first_models: {error}")
