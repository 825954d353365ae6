"""Puts a trained model into the package, half its size.

python -m recipes.bundle runs/pkg_audio/seed0/SAT_XS_2s/model SAT_XS_2s

Weights are rounded to bfloat16: kept as float32 of which the lower half is zero, they take half the
space where they are compressed, and every program reads them.
"""

import dataclasses
import shutil
import sys
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from sat_jax.bundled import BUNDLED
from sat_jax.checkpoint import load_checkpoint, save_checkpoint
from sat_jax.errors import SatError
from sat_jax.files import naming_file
from sat_jax.models.registry import model_config


def bundle(model: Path, name: str) -> Path:
    """Replaces the bundled model of a name.

    Args:
      model: a checkpoint folder.
      name: of a model in the registry; it must be that.

    Returns:
      The folder in the package.

    Raises:
      SatError: the checkpoint is of another model, can't be read, or the folder can't be written.
    """
    checkpoint = load_checkpoint(model)
    if checkpoint.config != model_config(name):
        raise SatError(f"{model} is no {name}: its config is another")
    rounded = jax.tree.map(_round, checkpoint.variables)
    with naming_file(BUNDLED), tempfile.TemporaryDirectory(dir=_made(BUNDLED)) as beside:
        new = Path(beside) / name
        save_checkpoint(new, dataclasses.replace(checkpoint, variables=rounded))
        # They only say that saving is over, and where it was done.
        for note in new.rglob("commit_success.txt"):
            note.unlink()
        load_checkpoint(new)
        folder = BUNDLED / name
        shutil.rmtree(folder, ignore_errors=True)
        new.rename(folder)
    return folder


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _round(array: jax.Array) -> np.ndarray:
    return np.asarray(jnp.asarray(array).astype(jnp.bfloat16).astype(jnp.float32))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python -m recipes.bundle MODEL_FOLDER NAME")
    try:
        print(bundle(Path(sys.argv[1]), sys.argv[2]))
    except SatError as error:
        sys.exit(f"bundle: {error}")
