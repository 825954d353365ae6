"""Published models by name: downloaded and converted once, then kept in the cache."""

import dataclasses
import tempfile
from pathlib import Path

from sat_jax.convert.checkpoints import convert_file
from sat_jax.convert.tensor_files import need_torch
from sat_jax.errors import SatError
from sat_jax.weights.catalog import converted_folder, fetch_published, published_url
from sat_jax.weights.checkpoint import Checkpoint, is_checkpoint, load_checkpoint, save_checkpoint
from sat_jax.weights.download import without_secrets


def load_published(name: str) -> Checkpoint:
    """Loads a published model from the cache, or downloads and converts it.

    Args:
      name: a key of `sat_jax.weights.catalog.PUBLISHED_FILES`.

    Raises:
      SatError: no weights of that name are published, they cannot be downloaded or read, or torch
        is missing.
    """
    url = without_secrets(published_url(name))
    folder = converted_folder(name)
    if checkpoint := _load_undamaged(folder):
        return checkpoint
    import filelock

    need_torch(f"converting {name}, once,")  # Checked before a download of hundreds of megabytes.
    file = fetch_published(name)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(f"{folder}.lock"):
            # Another process may have been first.
            return _load_undamaged(folder) or _save(folder, _convert(file, name, url))
    except OSError:  # A read-only cache is enough to use the model.
        return _convert(file, name, url)


def _load_undamaged(folder: Path) -> Checkpoint | None:
    try:
        return load_checkpoint(folder) if is_checkpoint(folder) else None
    except SatError:
        return None  # It is made again.


def _convert(file: Path, name: str, url: str) -> Checkpoint:
    try:
        checkpoint = convert_file(file, model=name)
    except SatError as error:
        raise SatError(
            f"{error}; if the file is damaged, delete it to download it again"
        ) from error
    return dataclasses.replace(checkpoint, source=url)


def _save(folder: Path, checkpoint: Checkpoint) -> Checkpoint:
    """Saves a checkpoint; replaces a damaged one."""
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".making-") as scratch:
        new = Path(scratch) / "new"
        save_checkpoint(new, checkpoint)
        if folder.exists():
            folder.rename(Path(scratch) / "old")
        new.rename(folder)
    return checkpoint
