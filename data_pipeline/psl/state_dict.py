"""Reads a state dict by `torch.save` without torch, which is a large package for one small file."""

import collections
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

_DTYPES = {"FloatStorage": "<f4", "LongStorage": "<i8"}


def read_state_dict(path: Path) -> dict[str, np.ndarray]:
    """Reads a file whose origin is known: damage raises errors of many kinds.

    Args:
      path: a zip archive, as `torch.save` writes since version 1.6.

    Returns:
      float32 and int64 arrays by name.
    """
    with zipfile.ZipFile(path) as archive:
        [name] = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        with archive.open(name) as file:
            return dict(_Reader(file, archive, name.removesuffix(".pkl")).load())


class _Reader(pickle.Unpickler):
    """Knows tensors and dictionaries; any other object is an error, and no code of it runs."""

    def __init__(self, file: Any, archive: zipfile.ZipFile, folder: str) -> None:
        super().__init__(file)
        self._archive, self._folder = archive, folder

    def find_class(self, module: str, name: str) -> Any:
        known = {"OrderedDict": collections.OrderedDict, "_rebuild_tensor_v2": _tensor} | _DTYPES
        if name not in known:
            raise pickle.UnpicklingError(f"{module}.{name} is not part of a state dict")
        return known[name]

    def persistent_load(self, pid: Any) -> np.ndarray:
        _, dtype, key, *_ = pid
        return np.frombuffer(self._archive.read(f"{self._folder}/{key}"), dtype)


def _tensor(
    storage: np.ndarray, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: Any
) -> np.ndarray:
    steps = [storage.itemsize * stride for stride in strides]
    return np.lib.stride_tricks.as_strided(storage[offset:], shape, steps, writeable=False)
