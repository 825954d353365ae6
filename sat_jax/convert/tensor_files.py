"""Reads and writes PyTorch and safetensors files as NumPy arrays."""

import importlib
import io
import pickle
import re
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from sat_jax.convert.weight_table import Tensors
from sat_jax.errors import SatError
from sat_jax.runtime.files import atomic_write, check_readable_file
from sat_jax.weights.catalog import TORCH_PREFIXES

SAFETENSORS_SUFFIX = ".safetensors"
TORCH_SUFFIXES = (".pt", ".pth", ".ckpt")

_NESTED_KEYS = ("model", "state_dict")
"""Keys under which training programs store the weights, beside optimizer state."""

_MOST_NESTED = 4
"""Dictionaries inside each other; a file may hold one that contains itself."""

_FLOATS = ("F32", "F16", "BF16", "float32", "float16", "bfloat16")
_COUNTERS = ("I64", "I32", "int64", "int32")

_NOT_WEIGHTS = {
    b"<": "is a web page, not weights: download the file again",
    b"version https://git-lfs": "is a Git LFS pointer: get the weights with `git lfs pull`",
}


def read_tensors(path: str | Path) -> Tensors:
    """Reads a file of weights; never runs code from it.

    Args:
      path: a ``.safetensors`` file, or a file by ``torch.save``: a state dict, alone or under
        "model" or "state_dict".

    Returns:
      float32 arrays by PyTorch name (float16 and bfloat16 are widened), and integer counters.

    Raises:
      SatError: the file is missing, damaged, of another kind, or holds Python objects; or a
        library to read it is missing.
    """
    path = Path(path)
    _check_readable(path)
    read = _read_safetensors if path.suffix == SAFETENSORS_SUFFIX else _read_torch
    tensors = read(path)
    if not tensors:
        raise SatError(f"{path} holds no tensors")
    return tensors


def write_tensors(path: str | Path, tensors: Tensors) -> None:
    """Writes a file of weights completely or not at all.

    Args:
      path: ``.safetensors``, or ``.pt``, ``.pth`` or ``.ckpt`` for {"model": state dict}.
      tensors: arrays by PyTorch name.

    Raises:
      SatError: the file exists or cannot be written, its name has another ending, or a library is
        missing.
    """
    path = Path(path)
    if path.exists():
        raise SatError(f"{path} exists: choose another name, or delete it first")
    data = _serialize(path, {name: np.array(x, order="C") for name, x in tensors.items()})
    with atomic_write(path) as temporary:
        temporary.write_bytes(data)


def _serialize(path: Path, tensors: Tensors) -> bytes | memoryview:
    """Serializes in memory: on a full disk, the libraries raise errors of their own."""
    if path.suffix == SAFETENSORS_SUFFIX:
        return _import("safetensors.numpy", path).save(tensors)
    if path.suffix in TORCH_SUFFIXES:
        torch = _import("torch", path)
        state_dict = {name: torch.from_numpy(array) for name, array in tensors.items()}
        buffer = io.BytesIO()
        torch.save({"model": state_dict}, buffer)
        return buffer.getbuffer()
    endings = ", ".join((*TORCH_SUFFIXES, SAFETENSORS_SUFFIX))
    raise SatError(f"{path} does not end in one of {endings}, which choose the format")


def need_torch(what: str) -> None:
    """Checks early that PyTorch is installed.

    Args:
      what: the task that needs it, for the message.

    Raises:
      SatError: it is not installed.
    """
    _import("torch", what)


def _import(module: str, what: str | Path) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise SatError(f"{what} needs {package}: pip install 'sat-jax[convert]'") from error


def _check_readable(path: Path) -> None:
    check_readable_file(path)
    with path.open("rb") as file:
        start = file.read(100)
    if not start:
        raise SatError(f"{path} is empty")
    for prefix, problem in _NOT_WEIGHTS.items():
        if start.lstrip().startswith(prefix):
            raise SatError(f"{path} {problem}")
    # Before libraries are asked for: a sound file needs none.
    is_safetensors = path.suffix == SAFETENSORS_SUFFIX and start[8:9] == b"{"
    if not (is_safetensors or start.startswith(TORCH_PREFIXES)):
        raise SatError(
            f"{path} is not a model file: give a checkpoint folder, or a .pt or .safetensors file"
        )


def _read_safetensors(path: Path) -> Tensors:
    # Registers "bfloat16" with NumPy; safetensors asks for it by name.
    import ml_dtypes  # noqa: F401

    library = _import("safetensors", path)
    with _reading_errors(path), library.safe_open(path, framework="numpy") as file:
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
        kinds = {name: (s.get_dtype(), len(s.get_shape())) for name, s in slices.items()}
        _check_kinds(path, kinds)
        return {name: _widened(file.get_tensor(name)) for name in slices}


def _read_torch(path: Path) -> Tensors:
    torch = _import("torch", path)
    with _reading_errors(path):
        _check_archive(path)
        with warnings.catch_warnings():
            # Warnings about old file formats do not help someone who only reads a file.
            warnings.simplefilter("ignore")
            content = torch.load(path, weights_only=True, map_location="cpu")
        state_dict = _state_dict(content, path)
        for name, value in state_dict.items():
            if not (isinstance(name, str) and isinstance(value, torch.Tensor)):
                raise SatError(f"{path}: {name} is not a named tensor")
        kinds = {
            name: (str(x.dtype).removeprefix("torch."), x.dim()) for name, x in state_dict.items()
        }
        _check_kinds(path, kinds)
        return {
            name: (x.float() if x.is_floating_point() else x).detach().numpy()
            for name, x in state_dict.items()
        }


def _check_archive(path: Path) -> None:
    """Checks the checksums of an archive; torch does not, so a flipped bit would go unnoticed."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if damaged := archive.testzip():
                raise zipfile.BadZipFile(f"checksum of {damaged}")


def _state_dict(content: Any, path: Path) -> dict[str, Any]:
    for _ in range(_MOST_NESTED):
        if not isinstance(content, dict):
            break
        nested = [content[key] for key in _NESTED_KEYS if isinstance(content.get(key), dict)]
        if not nested:
            return content
        content = nested[0]
    raise SatError(f"{path} holds a {type(content).__name__} instead of tensors by name")


def _check_kinds(path: Path, kinds: dict[str, tuple[str, int]]) -> None:
    """Checks dtypes and ranks: floats of any shape, integers only as scalars."""
    odd = [
        f"{name} ({dtype})"
        for name, (dtype, rank) in kinds.items()
        if dtype not in _FLOATS and not (dtype in _COUNTERS and rank == 0)
    ]
    if odd:
        raise SatError(f"{path}: tensors not in float32, float16 or bfloat16: {', '.join(odd)}")


def _widened(array: np.ndarray) -> np.ndarray:
    # NumPy does not count bfloat16 as floating.
    return array if np.issubdtype(array.dtype, np.integer) else array.astype(np.float32)


@contextmanager
def _reading_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except (SatError, MemoryError):
        raise
    except pickle.UnpicklingError as error:
        if found := re.search(r"GLOBAL ([\w.]+)", str(error)):
            raise SatError(
                f"{path} holds Python objects ({found[1]}), which could run any code: save the "
                f"state dict alone, torch.save(model.state_dict(), FILE)"
            ) from error
        raise SatError(f"{path} is not a PyTorch file, or is damaged") from error
    except Exception as error:  # torch and safetensors raise many kinds for damaged files.
        readable = isinstance(error, (RuntimeError, OSError, zipfile.BadZipFile))
        reason = ": " + re.split(r"\. |\n", str(error))[0] if readable else ""
        raise SatError(f"{path} is not a file of weights, or is damaged{reason}") from error
