"""Checks a file by `torch.save` before torch reads it: no file may take much time or memory."""

import pickletools
import zipfile
from pathlib import Path

from sat_jax.errors import SatError

_MOST_PICKLE_BYTES = 2 << 20
"""The pickle holds names and sizes, not weights: 0.1 MB for a thousand tensors."""

_OLD_PICKLES = 5
"""Pickles before the weights in a file from before torch 1.6, which is no zip archive."""


def check_archive(path: Path) -> None:
    """Checks sizes, and an archive's checksums: torch does not notice a flipped bit.

    Raises:
      SatError: the pickles are too large, or sizes are impossible.
      zipfile.BadZipFile, ValueError: the file is damaged.
    """
    if zipfile.is_zipfile(path):
        _check_zip(path)
        return
    with path.open("rb") as file:
        for _ in range(_OLD_PICKLES):
            for _, _, position in pickletools.genops(file):
                _check_pickle_size(path, position or 0)


def _check_zip(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        if sum(entry.file_size for entry in entries) > path.stat().st_size:
            raise SatError(f"{path} is damaged: its parts claim to be larger than the file")
        for entry in entries:
            if entry.filename.endswith(".pkl"):
                _check_pickle_size(path, entry.file_size)
        if damaged := archive.testzip():
            raise zipfile.BadZipFile(f"checksum of {damaged}")


def _check_pickle_size(path: Path, size: int) -> None:
    if size > _MOST_PICKLE_BYTES:
        raise SatError(
            f"{path} holds more than {_MOST_PICKLE_BYTES >> 20} MB beside its tensors: save the "
            f"state dict alone, torch.save(model.state_dict(), FILE)"
        )
