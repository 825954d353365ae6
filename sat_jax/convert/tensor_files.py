"""Reads and writes PyTorch and safetensors files as NumPy arrays."""

import importlib
import io
import math
import pickle
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from sat_jax.convert.torch_archive import load_archive
from sat_jax.convert.weight_sets import published_names
from sat_jax.convert.weight_table import Tensors
from sat_jax.errors import SatError
from sat_jax.runtime.files import atomic_write, check_readable_file
from sat_jax.weights.catalog import TORCH_PREFIXES

SAFETENSORS_SUFFIX = ".safetensors"
TORCH_SUFFIXES = (".pt", ".pth", ".ckpt")

_FLOATS = ("F32", "F16", "BF16", "float32", "float16", "bfloat16")
_COUNTERS = ("I64", "I32", "int64", "int32")

_NOT_WEIGHTS = {
    b"<": "is a web page, not weights: download the file again",
    b"version https://git-lfs": "is a Git LFS pointer: get the weights with `git lfs pull`",
}


def read_tensors(path: str | Path, part: str | None = None) -> Tensors:
    """Reads the weights of a model from a file; never runs code from it.

    Args:
      path: a ``.safetensors`` file, or a file by ``torch.save``: dictionaries of tensors, inside
        each other in any way. Tensors inside dictionaries have names such as "model.norm.bias".
      part: the set of weights to read, see `sat_jax.convert.weight_sets.published_names`.

    Returns:
      float32 arrays by published name (float16 and bfloat16 are widened), and integer counters.

    Raises:
      SatError: the file is missing, damaged, of another kind, or holds Python objects; `part` does
        not choose one set; or a library to read the file is missing.
    """
    path = Path(path)
    _check_readable(path)
    is_safetensors = path.suffix == SAFETENSORS_SUFFIX
    with _open_safetensors(path) if is_safetensors else _open_torch(path) as found:
        if not found:
            raise SatError(f"{path} holds no tensors by name")
        try:
            names = published_names(found, part)
        except SatError as error:
            raise SatError(f"{path}: {error}") from error
        _check_tensors(path, {name: found[name] for name in names})
        return {new: found[name].read() for name, new in names.items()}


class _Tensor(NamedTuple):
    """A tensor that is not read yet; a sparse one has its layout in place of a dtype."""

    dtype: str
    shape: tuple[int, ...]
    read: Callable[[], np.ndarray]


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


@contextmanager
def _open_safetensors(path: Path) -> Iterator[dict[str, _Tensor]]:
    # Registers "bfloat16" with NumPy; safetensors asks for it by name.
    import ml_dtypes  # noqa: F401

    library = _import("safetensors", path)
    with _reading_errors(path), library.safe_open(path, framework="numpy") as file:

        def describe(name: str) -> _Tensor:
            piece = file.get_slice(name)
            return _Tensor(
                piece.get_dtype(),
                tuple(piece.get_shape()),
                lambda: _widened(file.get_tensor(name)),
            )

        yield {name: describe(name) for name in file.keys()}  # noqa: SIM118


@contextmanager
def _open_torch(path: Path) -> Iterator[dict[str, _Tensor]]:
    torch = _import("torch", path)
    with _reading_errors(path):

        def describe(tensor: Any) -> _Tensor:
            kind = _kind(tensor, torch)
            as_float = tensor.float if tensor.is_floating_point() else lambda: tensor
            return _Tensor(
                kind,
                () if kind == "nested" else tuple(tensor.shape),
                lambda: as_float().detach().numpy(),
            )

        flat = _flatten(load_archive(path, torch))
        yield {name: describe(x) for name, x in flat.items() if isinstance(x, torch.Tensor)}


def _kind(tensor: Any, torch: ModuleType) -> str:
    """Returns the dtype of a tensor, or how it is stored if that is not one array of numbers."""
    if tensor.is_nested:
        return "nested"
    if tensor.is_meta:
        return "on meta, without values"
    stored = tensor.dtype if tensor.layout == torch.strided else tensor.layout
    return str(stored).removeprefix("torch.")


def _flatten(content: dict[Any, Any]) -> dict[str, Any]:
    """Values inside dictionaries, by dotted name; a dictionary that is there twice counts once."""
    flat, seen, waiting = {}, {id(content)}, [("", content)]
    while waiting:
        prefix, branch = waiting.pop()
        for key, value in branch.items():
            if not isinstance(key, str):
                continue  # Such as the numbers of an optimizer's states.
            if not isinstance(value, dict):
                flat[prefix + key] = value
            elif id(value) not in seen:
                seen.add(id(value))
                waiting.append((f"{prefix}{key}.", value))
    return flat


def _check_tensors(path: Path, tensors: Mapping[str, _Tensor]) -> None:
    """Checks dtypes and sizes: floats of any shape, integers only as scalars."""
    odd = [
        f"{name} ({dtype})"
        for name, (dtype, shape, _) in tensors.items()
        if dtype not in _FLOATS and not (dtype in _COUNTERS and not shape)
    ]
    if odd:
        more = f" and {len(odd) - 3} more" if len(odd) > 3 else ""
        is_sparse = any("(sparse" in each for each in odd)
        advice = "each as tensor.to_dense()" if is_sparse else "model.float().state_dict()"
        raise SatError(
            f"{path}: tensors not in float32, float16 or bfloat16: {', '.join(odd[:3])}{more}; "
            f"save {advice}"
        )
    # A view may repeat a few numbers without end.
    if 2 * sum(math.prod(each.shape) for each in tensors.values()) > path.stat().st_size:
        raise SatError(f"{path}: its tensors claim to be larger than the file, which is damaged")


def _widened(array: np.ndarray) -> np.ndarray:
    # NumPy does not count bfloat16 as floating.
    return array if np.issubdtype(array.dtype, np.integer) else array.astype(np.float32)


@contextmanager
def _reading_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except SatError:
        raise
    except MemoryError as error:
        raise SatError(f"{path} needs more memory than there is, or is damaged") from error
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
