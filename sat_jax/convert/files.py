"""PyTorch and safetensors files as NumPy arrays, and back."""

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

from sat_jax.convert.names import Tensors
from sat_jax.errors import SatError
from sat_jax.runtime.files import atomic_write

SAFETENSORS_SUFFIX = ".safetensors"
TORCH_SUFFIXES = (".pt", ".pth", ".ckpt")

_NESTED_KEYS = ("model", "state_dict")
"""Where training programs put the weights, beside optimiser state and the like."""

_FLOATS = ("F32", "F16", "BF16", "float32", "float16", "bfloat16")
_COUNTERS = ("I64", "I32", "int64", "int32")

_NOT_WEIGHTS = {
    b"<": "is a web page, not weights: its download went wrong",
    b"version https://git-lfs": "only says where the weights are: fetch them with `git lfs pull`",
}


def read_tensors(path: str | Path) -> Tensors:
    """Reads a file of weights; nothing in it is ever run.

    Args:
      path: a ``.safetensors`` file, else what ``torch.save`` wrote: a state dict, bare or under
        "model" or "state_dict".

    Returns:
      float32 arrays by PyTorch name, widened from half precision or bfloat16 where need be, and
      integer counters as they are.

    Raises:
      SatError: the file is missing, damaged, of another kind, or would have to be trusted; or a
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
    """Writes weights, whole or not at all.

    Args:
      path: ``.safetensors``, or ``.pt``, ``.pth`` or ``.ckpt`` for {"model": state dict}.
      tensors: arrays by PyTorch name.

    Raises:
      SatError: the file exists or can't be written, its name has another ending, or a library is
        missing.
    """
    path = Path(path)
    if path.exists():
        raise SatError(f"{path} exists: choose another name, or remove it first")
    data = _serialize(path, {name: np.array(x, order="C") for name, x in tensors.items()})
    with atomic_write(path) as temporary:
        temporary.write_bytes(data)


def _serialize(path: Path, tensors: Tensors) -> bytes | memoryview:
    """In memory, since the libraries have errors of their own for a full disk."""
    if path.suffix == SAFETENSORS_SUFFIX:
        return _import("safetensors.numpy", path).save(tensors)
    if path.suffix in TORCH_SUFFIXES:
        torch = _import("torch", path)
        state_dict = {name: torch.from_numpy(array) for name, array in tensors.items()}
        buffer = io.BytesIO()
        torch.save({"model": state_dict}, buffer)
        return buffer.getbuffer()
    endings = ", ".join((*TORCH_SUFFIXES, SAFETENSORS_SUFFIX))
    raise SatError(f"{path} says not what to write: give it one of the endings {endings}")


def need_torch(what: str) -> None:
    """Finds out early that PyTorch is missing.

    Args:
      what: needs it.

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
    try:
        with path.open("rb") as file:
            start = file.read(100)
    except OSError as error:
        raise SatError(f"cannot read {path}: {error.strerror or error}") from error
    if not start:
        raise SatError(f"{path} is empty")
    for prefix, problem in _NOT_WEIGHTS.items():
        if start.lstrip().startswith(prefix):
            raise SatError(f"{path} {problem}")


def _read_safetensors(path: Path) -> Tensors:
    # Teaches NumPy the name "bfloat16", by which safetensors asks for it.
    import ml_dtypes  # noqa: F401

    library = _import("safetensors", path)
    with _damage_as_error(path), library.safe_open(path, framework="numpy") as file:
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
        kinds = {name: (s.get_dtype(), len(s.get_shape())) for name, s in slices.items()}
        _check_kinds(path, kinds)
        return {name: _widened(file.get_tensor(name)) for name in slices}


def _read_torch(path: Path) -> Tensors:
    torch = _import("torch", path)
    with _damage_as_error(path):
        _check_archive(path)
        with warnings.catch_warnings():
            # About old file formats, of no use to who only reads them.
            warnings.simplefilter("ignore")
            content = torch.load(path, weights_only=True, map_location="cpu")
        state_dict = _state_dict(content, path)
        strays = [
            name
            for name, x in state_dict.items()
            if not (isinstance(name, str) and isinstance(x, torch.Tensor))
        ]
        if strays:
            raise SatError(f"{path} holds what is no named tensor: {', '.join(map(str, strays))}")
        kinds = {
            name: (str(x.dtype).removeprefix("torch."), x.dim()) for name, x in state_dict.items()
        }
        _check_kinds(path, kinds)
        return {
            name: (x.float() if x.is_floating_point() else x).detach().numpy()
            for name, x in state_dict.items()
        }


def _check_archive(path: Path) -> None:
    """Compares checksums, which torch does not: a flipped bit would only show as odd scores."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if damaged := archive.testzip():
                raise zipfile.BadZipFile(f"checksum of {damaged}")


def _state_dict(content: Any, path: Path) -> dict[str, Any]:
    while isinstance(content, dict):
        nested = [content[key] for key in _NESTED_KEYS if isinstance(content.get(key), dict)]
        if not nested:
            return content
        content = nested[0]
    raise SatError(f"{path} holds a {type(content).__name__}, not tensors by name")


def _check_kinds(path: Path, kinds: dict[str, tuple[str, int]]) -> None:
    """Checks each tensor's type and rank: floats of any shape, integers only as counters."""
    odd = [
        f"{name} ({dtype})"
        for name, (dtype, rank) in kinds.items()
        if dtype not in _FLOATS and not (dtype in _COUNTERS and rank == 0)
    ]
    if odd:
        raise SatError(f"{path}: not float32, float16 or bfloat16: {', '.join(odd)}")


def _widened(array: np.ndarray) -> np.ndarray:
    # bfloat16 is none of NumPy's own types, and so not among its floating ones.
    return array if np.issubdtype(array.dtype, np.integer) else array.astype(np.float32)


@contextmanager
def _damage_as_error(path: Path) -> Iterator[None]:
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
        raise SatError(f"{path} is no PyTorch file, or a damaged one") from error
    except Exception as error:  # torch and safetensors raise many kinds for damaged files.
        spoken = isinstance(error, (RuntimeError, OSError, zipfile.BadZipFile))
        reason = ": " + re.split(r"\. |\n", str(error))[0] if spoken else ""
        raise SatError(f"{path} is no file of weights, or a damaged one{reason}") from error
