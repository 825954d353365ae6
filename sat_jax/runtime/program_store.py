"""Compiled programs on disk, so that the next start need not compile them again.

`ProgramStore` skips tracing, lowering and compiling; tagging uses it for a quick first result.
JAX's own cache skips compiling only. Tracing and lowering take longer than the rest of a short run.
"""

import contextlib
import dataclasses
import functools
import hashlib
import os
import pickle
import platform
import secrets
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import flax
import jax
import jaxlib
import numpy as np
from jax.experimental.compilation_cache import compilation_cache

from sat_jax.errors import SatError
from sat_jax.runtime.files import cache_dir
from sat_jax.runtime.jax_modes import standard_modes
from sat_jax.runtime.private_folders import Warn, check_private, is_private, warn_in_python

_CHECKSUM_BYTES = hashlib.sha256().digest_size
_MAX_FILES = 64
_stores: dict[Path | None, "ProgramStore"] = {}

_MAKING = threading.Lock()
"""Threads that need the same new program wait until one of them has made it."""


def cache_compiled_programs(warn: Warn = warn_in_python) -> None:
    """Turns on JAX's own cache of compiled programs, in `cache_dir`.

    If the user has chosen a folder (``JAX_COMPILATION_CACHE_DIR``), JAX's settings stay.

    Args:
      warn: receives the reason if the folder cannot be trusted. The cache is off then.
    """
    if jax.config.values["jax_compilation_cache_dir"] is not None:
        return
    with contextlib.suppress(SatError, OSError):  # The system may have no home folder.
        folder = cache_dir() / "compiled"
        if not is_private(folder, warn):
            return
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def default_store(warn: Warn = warn_in_python) -> "ProgramStore":
    """Returns the process's store in `cache_dir`.

    It keeps programs in memory only if ``SAT_JAX_KEEP_PROGRAMS`` is "0", if there is no home
    folder, or if others may write to the folder.

    Args:
      warn: receives the reason, once in a process, if the folder cannot be trusted.
    """
    if os.environ.get("SAT_JAX_KEEP_PROGRAMS") == "0":
        return open_store(None)
    try:
        return open_store(cache_dir() / "programs", warn)
    except SatError:
        return open_store(None)


def open_store(folder: Path | None, warn: Warn = warn_in_python) -> "ProgramStore":
    """Returns the process's only store of a folder.

    Args:
      folder: of the programs; None keeps them in memory only.
      warn: see `default_store`.
    """
    if folder not in _stores:
        is_trusted = folder is not None and is_private(folder, warn)
        _stores[folder] = ProgramStore(folder if is_trusted else None)
    return _stores[folder]


class ProgramStore:
    """Runs jitted functions from compiled programs in a folder, and saves those it compiles.

    Files are unpickled and run, so those that others may write are ignored, see `check_private`. So
    is a file that is damaged or was made for another machine or other versions.
    """

    def __init__(self, folder: str | Path | None) -> None:
        """Opens a store.

        Args:
          folder: created when the first program is saved; None keeps programs in memory only.
        """
        self._folder = None if folder is None else Path(folder)
        self._programs: dict[Any, Callable[..., Any]] = {}

    def run(self, function: Any, static: tuple[Any, ...], *args: Any, **options: Any) -> Any:
        """Returns ``function(*static, *args, **options)``, whatever modes JAX is in.

        Args:
          function: a jitted function, for which `static` and `options` are static arguments.
          static: its first arguments: plain data, dataclasses among it.
          *args: pytrees of arrays.
          **options: more plain data.
        """
        return run_program(self.program(function, static, *args, **options), *args)

    def program(
        self, function: Any, static: tuple[Any, ...], *args: Any, **options: Any
    ) -> Callable[..., Any]:
        """Returns the program of `run`, loaded or compiled, for `run_program`.

        Args:
          function: see `run`.
          static: see `run`.
          *args: see `run`; only shapes and dtypes matter.
          **options: see `run`.
        """
        name = function.__name__
        leaves, tree = jax.tree.flatten(args)
        shapes = tuple((leaf.shape, leaf.dtype) for leaf in leaves)
        device = str(jax.config.jax_default_device)  # type: ignore[attr-defined]
        key = (name, static, tuple(options.items()), tree, shapes, device)
        if key not in self._programs:
            described = [_all_fields(each) for each in static]
            signature = repr((name, described, options, str(tree), shapes, device))
            with _MAKING, standard_modes():
                if key not in self._programs:
                    digest = _digest(signature, _environment())
                    path = self._folder and self._folder / f"{name.strip('_')}-{digest}"
                    self._programs[key] = (path and _load(path)) or self._compile(
                        path, function, static, args, options
                    )
        return self._programs[key]

    def _compile(
        self, path: Path | None, function: Any, static: Any, args: Any, options: Any
    ) -> Callable[..., Any]:
        lowered = function.lower(*static, *args, **options)
        with _without_jax_cache():
            compiled = lowered.compile()
        if path is not None:
            # The program runs even if the disk is full or the device cannot save programs.
            with contextlib.suppress(Exception):
                _save(path, compiled, args)
                _remove_oldest(path.parent)
        return compiled


def run_program(program: Callable[..., Any], *args: Any) -> Any:
    """Runs a program of `ProgramStore.program` and waits for its results.

    The interpreter crashes if it exits while a loaded program runs.
    """
    with standard_modes():
        return jax.block_until_ready(program(*args))


def _all_fields(thing: Any) -> Any:
    """Returns the fields of a dataclass, whose `repr` may leave some out."""
    return dataclasses.asdict(thing) if dataclasses.is_dataclass(thing) else thing  # type: ignore[arg-type]


@contextlib.contextmanager
def _without_jax_cache() -> Iterator[None]:
    """Turns JAX's cache off: a program that comes out of it can be saved, but not run again."""
    was = jax.config.values["jax_enable_compilation_cache"]
    try:
        # JAX reads the setting once in a process, except after a reset.
        compilation_cache.reset_cache()
        jax.config.update("jax_enable_compilation_cache", False)
        yield
    finally:
        compilation_cache.reset_cache()
        jax.config.update("jax_enable_compilation_cache", was)


def _load(path: Path) -> Callable[..., Any] | None:
    try:
        check_private(path.parent)
        check_private(path)
        stored = path.read_bytes()
        checksum, data = stored[:_CHECKSUM_BYTES], stored[_CHECKSUM_BYTES:]
        if hashlib.sha256(data).digest() != checksum:  # It could crash or give wrong results.
            return None
        program = _unpack(data)
        with contextlib.suppress(OSError):  # The folder may be read-only, as in an image.
            path.touch()
        return program
    except Exception:  # Unpickling a damaged file can raise any type.
        return None


def _save(path: Path, compiled: jax.stages.Compiled, args: Any) -> None:
    from jax.experimental import serialize_executable

    data = pickle.dumps(serialize_executable.serialize(compiled))
    # Run it once before it is kept: a program that this process got from JAX's cache earlier can be
    # saved and loaded, but fails when it runs.
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), args)
    jax.block_until_ready(_unpack(data)(*zeros))
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    check_private(path.parent)
    temporary = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
    try:
        temporary.touch(mode=0o600, exist_ok=False)
        temporary.write_bytes(hashlib.sha256(data).digest() + data)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _unpack(data: bytes) -> Callable[..., Any]:
    from jax.experimental import serialize_executable

    return serialize_executable.deserialize_and_load(*pickle.loads(data))


def _remove_oldest(folder: Path) -> None:
    by_age = sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime)
    for path in by_age[:-_MAX_FILES]:
        path.unlink(missing_ok=True)


@functools.cache
def _environment() -> str:
    """Digest of what a program depends on: code, libraries, settings and machine."""
    code = [path.read_bytes() for path in sorted(Path(__file__).parents[1].rglob("*.py"))]
    versions = [module.__version__ for module in (jax, jaxlib, flax)]
    device = jax.devices()[0]
    flags = [os.environ.get(name) for name in ("XLA_FLAGS", "LIBTPU_INIT_ARGS")]
    place = [device.platform, device.device_kind, jax.device_count(), _processor(), os.cpu_count()]
    return _digest(code, versions, flags, place, sorted(jax.config.values.items(), key=str))


def _processor() -> str:
    """Returns the processor's features: compiled programs may use all of them."""
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as info:
        return next((line for line in info if line.startswith(("flags", "Features"))), "")
    return platform.platform() + platform.processor()


def _digest(*things: object) -> str:
    return hashlib.sha256(repr(things).encode()).hexdigest()[:32]
