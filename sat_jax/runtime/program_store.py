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
from jax.experimental.compilation_cache import compilation_cache

from sat_jax.runtime.files import cache_dir

_CHECKSUM_BYTES = hashlib.sha256().digest_size
_MAX_FILES = 64

_MAKING = threading.Lock()
"""Threads that need the same new program wait until one of them has made it."""


def cache_compiled_programs() -> None:
    """Turns on JAX's own cache of compiled programs, in `cache_dir`.

    If the user has chosen a folder (``JAX_COMPILATION_CACHE_DIR``), JAX's settings stay.
    """
    if jax.config.values["jax_compilation_cache_dir"] is not None:
        return
    jax.config.update("jax_compilation_cache_dir", str(cache_dir() / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


class ProgramStore:
    """Runs jitted functions from compiled programs in a folder, and saves those it compiles.

    Files are unpickled and run, so only the user may write to the folder. A file that is damaged or
    was made for another machine or other versions is ignored and replaced.
    """

    def __init__(self, folder: str | Path) -> None:
        """Opens a store.

        Args:
          folder: created when the first program is saved.
        """
        self._folder = Path(folder)
        self._programs: dict[Any, Callable[..., Any]] = {}

    def run(self, function: Any, static: tuple[Any, ...], *args: Any, **options: Any) -> Any:
        """Returns ``function(*static, *args, **options)``.

        Args:
          function: a jitted function, for which `static` and `options` are static arguments.
          static: its first arguments: plain data, dataclasses among it.
          *args: pytrees of arrays.
          **options: more plain data.
        """
        name = function.__name__
        leaves, tree = jax.tree.flatten(args)
        shapes = tuple((leaf.shape, leaf.dtype) for leaf in leaves)
        key = (name, static, tuple(options.items()), tree, shapes)
        if key not in self._programs:
            with _MAKING:
                if key not in self._programs:
                    described = [_all_fields(each) for each in static]
                    signature = repr((name, described, options, str(tree), shapes))
                    path = self._folder / f"{name.strip('_')}-{_digest(signature, _environment())}"
                    self._programs[key] = _load(path) or self._compile(
                        path, function, static, args, options
                    )
        # Wait for the result: the interpreter crashes if it exits while a loaded program runs.
        return jax.block_until_ready(self._programs[key](*args))

    def _compile(
        self, path: Path, function: Any, static: Any, args: Any, options: Any
    ) -> Callable[..., Any]:
        lowered = function.lower(*static, *args, **options)
        with _without_jax_cache():
            compiled = lowered.compile()
        # The program runs even if the disk is full or the device cannot save programs.
        with contextlib.suppress(Exception):
            _save(path, compiled, args)
            _remove_oldest(self._folder)
        return compiled


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
    jax.block_until_ready(_unpack(data)(*args))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
    temporary.write_bytes(hashlib.sha256(data).digest() + data)
    temporary.replace(path)


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
