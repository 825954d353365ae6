"""The published models by name: downloaded and converted once, then kept."""

import dataclasses
import tempfile
from pathlib import Path

from sat_jax.convert.checkpoints import convert_file
from sat_jax.convert.files import need_torch
from sat_jax.errors import SatError
from sat_jax.weights.checkpoint import Checkpoint, is_checkpoint, load_checkpoint, save_checkpoint
from sat_jax.weights.download import cache_dir, fetch_published, published_url


def load_published(name: str) -> Checkpoint:
    """A published model, from the cache folder or else downloaded and converted.

    Args:
      name: a key of `sat_jax.weights.download.PUBLISHED_FILES`.

    Raises:
      SatError: the name is unknown, or the weights can't be had or read, or torch is missing.
    """
    url = published_url(name)
    folder = cache_dir() / "converted" / name
    if checkpoint := _load_sound(folder):
        return checkpoint
    import filelock

    need_torch(f"converting {name}, once,")  # Before hundreds of megabytes are fetched.
    file = fetch_published(name)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(f"{folder}.lock"):
            # Another process may have been first.
            return _load_sound(folder) or _put(folder, _convert(file, name, url))
    except OSError:  # A cache that may only be read has all that is needed.
        return _convert(file, name, url)


def _load_sound(folder: Path) -> Checkpoint | None:
    try:
        return load_checkpoint(folder) if is_checkpoint(folder) else None
    except SatError:
        return None  # A damaged copy of what can be made again is no reason to stop.


def _convert(file: Path, name: str, url: str) -> Checkpoint:
    try:
        checkpoint = convert_file(file, model=name)
    except SatError as error:
        raise SatError(f"{error}; if the file is damaged, delete it to fetch it anew") from error
    return dataclasses.replace(checkpoint, source=url)


def _put(folder: Path, checkpoint: Checkpoint) -> Checkpoint:
    """Saves a checkpoint in place of a damaged one, or of none."""
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".making-") as scratch:
        new = Path(scratch) / "new"
        save_checkpoint(new, checkpoint)
        if folder.exists():
            folder.rename(Path(scratch) / "old")
        new.rename(folder)
    return checkpoint
