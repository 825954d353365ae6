"""Puts the best model of a course into the package, at half its size, and the results into docs.

python -m projects.box_model.bundle runs/pkg_audio

The argument is the --workdir of projects.box_model.course. The seed with the highest mAP on the
validation scenes is bundled. A file beside the model lists its results by class; the results of all
seeds go to docs/results.md and results.png.

Weights are rounded to bfloat16 and stored as float32 with a zero lower half. Compressed, they take
half the space, and every program can read them.
"""

import dataclasses
import shutil
import sys
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from projects.box_model.class_table import class_results
from projects.box_model.measured import best_seed
from projects.box_model.results import write_results
from sat_jax.errors import SatError
from sat_jax.models.registry import model_config
from sat_jax.runtime.files import atomic_write, check_writable_file, explain_write_errors
from sat_jax.weights.catalog import BUNDLED, DEFAULT_MODEL
from sat_jax.weights.checkpoint import Checkpoint, load_checkpoint, save_checkpoint

DOCS = Path(__file__).parent / "docs"


def bundle_best(work: Path, name: str = DEFAULT_MODEL) -> Path:
    """Replaces the bundled model with the best one of a course, and the published results.

    Args:
      work: folder of the course.
      name: name of the streaming model.

    Returns:
      The model's folder in the package.

    Raises:
      SatError: the course is not finished, or a file can't be read or written.
    """
    seed, _ = best_seed(work, name)
    by_class = class_results(work, name)
    write_results(work)
    docs = {suffix: DOCS / f"results{suffix}" for suffix in (".md", ".png")}
    results = BUNDLED / f"{name}.results.md"
    for path in (*docs.values(), results):
        check_writable_file(path)
    folder = bundle(work / f"seed{seed}" / name / "model", name)
    with atomic_write(results) as temporary:
        temporary.write_text(by_class, encoding="utf-8")
    for suffix, path in docs.items():
        with atomic_write(path) as temporary:
            shutil.copyfile(work / f"results{suffix}", temporary)
    return folder


def bundle(model: Path, name: str) -> Path:
    """Replaces a bundled model.

    Args:
      model: a checkpoint folder.
      name: name of the model in the registry.

    Returns:
      The model's folder in the package.

    Raises:
      SatError: the checkpoint is of another model or can't be read, or the folder can't be written.
    """
    checkpoint = load_checkpoint(model)
    if checkpoint.config != model_config(name):
        raise SatError(f"{model} is not a {name}: their configs differ")
    return replace_bundled(checkpoint, name)


def replace_bundled(checkpoint: Checkpoint, name: str) -> Path:
    """Replaces a bundled model with a checkpoint, rounded; its thresholds go.

    Args:
      checkpoint: the model.
      name: name of the model in the registry.

    Returns:
      The model's folder in the package.

    Raises:
      SatError: the folder can't be written.
    """
    rounded = jax.tree.map(_round, checkpoint.variables)
    with explain_write_errors(BUNDLED), tempfile.TemporaryDirectory(dir=_made(BUNDLED)) as beside:
        new = Path(beside) / name
        save_checkpoint(new, dataclasses.replace(checkpoint, variables=rounded))
        # These mark the end of saving, and have paths of this machine.
        for note in new.rglob("commit_success.txt"):
            note.unlink()
        load_checkpoint(new)
        folder = BUNDLED / name
        if folder.exists():
            folder.rename(Path(beside) / "old")
        new.rename(folder)
    return folder


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _round(array: jax.Array) -> np.ndarray:
    return np.asarray(jnp.asarray(array).astype(jnp.bfloat16).astype(jnp.float32))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m projects.box_model.bundle WORKDIR")
    try:
        print(bundle_best(Path(sys.argv[1])))
    except SatError as error:
        sys.exit(f"bundle: {error}")
