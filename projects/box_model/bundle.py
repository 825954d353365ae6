"""Puts the best model of a course into the package, half its size, and what came of it into docs.

python -m projects.box_model.bundle runs/pkg_audio

The folder is that of `python -m projects.box_model.course --workdir`; the seed with the highest
mAP on the validation scenes is taken. A file beside the model lists its results by class; those of
all seeds go into docs/results.md and .png. Weights are rounded to bfloat16 and stored as float32
with a zero lower half: compressed, they take half the space, and every program reads them.
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
from sat_jax.weights.checkpoint import load_checkpoint, save_checkpoint

DOCS = Path(__file__).parent / "docs"
RESULTS = "pkg_audio_results"
"""Files of this name in docs are those of the course, as they are."""


def bundle_best(work: Path, name: str = DEFAULT_MODEL) -> Path:
    """Replaces the bundled model by the best of a course, and all results by the course's.

    Args:
      work: folder of `projects.box_model.course`.
      name: of the streaming model.

    Returns:
      The folder in the package.

    Raises:
      SatError: the course is not through, or something can't be read or written.
    """
    seed, _ = best_seed(work, name)
    by_class = class_results(work, name)
    write_results(work)
    docs = {suffix: DOCS / f"{RESULTS}{suffix}" for suffix in (".md", ".png")}
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
    with explain_write_errors(BUNDLED), tempfile.TemporaryDirectory(dir=_made(BUNDLED)) as beside:
        new = Path(beside) / name
        save_checkpoint(new, dataclasses.replace(checkpoint, variables=rounded))
        # They only say that saving is over, and where it was done.
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
