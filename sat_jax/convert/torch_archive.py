"""Reads a file by `torch.save`: no file may run code, or take much time or memory."""

import pickle
import pickletools
import warnings
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from sat_jax.errors import SatError

_MOST_PICKLE_BYTES = 2 << 20
"""The pickle holds names and sizes, not weights: 0.1 MB for a thousand tensors."""

_OLD_PICKLES = 5
"""Pickles before the weights in a file from before torch 1.6, which is no zip archive."""


_MOST_TUPLE_PARTS = 10_000_000
"""Python's hash of a tuple visits all tuples inside: thousands of levels overflow its C stack.

N levels count N²/2 in all, so that this allows 4 472: a stack of 512 kB holds 5 000. A thousand
tensors count 15 000."""


class _Ignored:
    """Stands for any Python object in a file, such as a training's settings."""

    def __init__(self, *_: Any, **__: Any) -> None:
        """Takes what the object would."""

    def __setstate__(self, state: Any) -> None:
        """Drops what the object would keep."""


def load_archive(path: Path, torch: ModuleType) -> dict[Any, Any]:
    """Reads the dictionary in a file; Python objects in it are replaced, and their code never runs.

    Args:
      path: the file.
      torch: the library.

    Raises:
      SatError: the pickles are too large or nested, sizes are impossible, or the file holds
        something else.
      Exception: any other, if the file is damaged.
    """
    _check_sizes(path)
    is_zip = zipfile.is_zipfile(path)
    objects = torch.serialization.get_unsafe_globals_in_checkpoint(path) if is_zip else []
    try:
        with (
            warnings.catch_warnings(),
            torch.serialization.safe_globals([(_Ignored, name) for name in objects]),
        ):
            # Warnings about old file formats do not help someone who only reads a file.
            warnings.simplefilter("ignore")
            content = torch.load(path, weights_only=True, map_location="cpu")
    except pickle.UnpicklingError as error:  # Such as a subclass of dict.
        if objects:
            raise _holds_objects(path, objects) from error
        raise
    if isinstance(content, dict):
        return content
    if objects:
        raise _holds_objects(path, objects)
    raise SatError(f"{path} holds a {type(content).__name__} instead of tensors by name")


def _holds_objects(path: Path, objects: Sequence[str]) -> SatError:
    return SatError(
        f"{path} holds Python objects ({', '.join(objects[:3])}), which could run any code: save "
        f"the state dict alone, torch.save(model.state_dict(), FILE)"
    )


def _check_sizes(path: Path) -> None:
    """Checks sizes, and an archive's checksums: torch does not notice a flipped bit."""
    if zipfile.is_zipfile(path):
        _check_zip(path)
        return
    with path.open("rb") as file:
        for _ in range(_OLD_PICKLES):
            _check_tuples(path, _sized(path, pickletools.genops(file)))


def _check_zip(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        if sum(entry.file_size for entry in entries) > path.stat().st_size:
            raise SatError(f"{path} is damaged: its parts claim to be larger than the file")
        for entry in entries:
            if entry.filename.endswith(".pkl"):
                _check_pickle_size(path, entry.file_size)
                _check_tuples(path, pickletools.genops(archive.read(entry)))
        if damaged := archive.testzip():
            raise zipfile.BadZipFile(f"checksum of {damaged}")


_Opcode = tuple[pickletools.OpcodeInfo, Any, int | None]


def _sized(path: Path, opcodes: Iterable[_Opcode]) -> Iterator[_Opcode]:
    for opcode, argument, position in opcodes:
        _check_pickle_size(path, position or 0)
        yield opcode, argument, position


def _check_tuples(path: Path, opcodes: Iterable[_Opcode]) -> None:
    """Counts the parts of each tuple, as a key of a dictionary would be hashed."""
    total = 0
    stack: list[int] = []
    marks: list[int] = []
    memo: dict[int, int] = {}
    for opcode, argument, _ in opcodes:
        name = opcode.name
        if name == "MARK":
            marks.append(len(stack))
        elif name.endswith("PUT"):
            memo[argument] = stack[-1]
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name.endswith("GET"):
            stack.append(memo[argument])
            total += stack[-1]
        else:
            taken = _taken(opcode, stack, marks)
            parts = 1 + sum(taken) if "TUPLE" in name else 1
            stack += [parts] * len(opcode.stack_after)
            total += parts
        if total > _MOST_TUPLE_PARTS:
            raise SatError(f"{path} is damaged: it nests tuples more deeply than any checkpoint")


def _taken(opcode: pickletools.OpcodeInfo, stack: list[int], marks: list[int]) -> list[int]:
    """Takes what the opcode consumes from the stack."""
    before = opcode.stack_before
    if pickletools.markobject in before:
        size = len(stack) - marks.pop() + before.index(pickletools.markobject)
    else:
        size = len(before)
    start = len(stack) - size
    taken = stack[start:]
    del stack[start:]
    return taken


def _check_pickle_size(path: Path, size: int) -> None:
    if size > _MOST_PICKLE_BYTES:
        raise SatError(
            f"{path} holds more than {_MOST_PICKLE_BYTES >> 20} MB beside its tensors: save the "
            f"state dict alone, torch.save(model.state_dict(), FILE)"
        )
