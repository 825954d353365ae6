"""Compiled programs on disk, so that a start needs neither trace nor compile them.

JAX's own cache saves only the compiling, and only after a model was traced and lowered anew, which
takes longer than all the rest of a short run.
"""

import contextlib
import functools
import hashlib
import os
import pickle
import platform
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import flax
import jax
import jaxlib
from jax.experimental.compilation_cache import compilation_cache

_CHECKSUM_BYTES = hashlib.sha256().digest_size
_MAX_FILES = 64


class ProgramStore:
    """Runs jitted functions, from compiled programs in a folder where it has them.

    The folder is trusted as the program itself is: what lies in it is run. A file that does not
    suit this machine or these versions is passed over and replaced.
    """

    def __init__(self, folder: str | Path) -> None:
        """Opens a store.

        Args:
          folder: where programs lie; made when the first is saved.
        """
        self._folder = Path(folder)
        self._programs: dict[Any, Callable[..., Any]] = {}

    def run(self, function: Any, static: tuple[Any, ...], *args: Any, **options: Any) -> Any:
        """Gives ``function(*static, *args, **options)``.

        Args:
          function: from `jax.jit`; the arguments in `static` and `options` are its static ones.
          static: its first arguments; plain data whose `repr` tells all.
          *args: pytrees of arrays.
          **options: more plain data.
        """
        name = function.__name__
        leaves, tree = jax.tree.flatten(args)
        shapes = tuple((leaf.shape, leaf.dtype) for leaf in leaves)
        key = (name, static, tuple(options.items()), tree, shapes)
        if key not in self._programs:
            what = repr((name, static, options, str(tree), shapes))
            path = self._folder / f"{name.strip('_')}-{_digest(what, _surroundings())}"
            self._programs[key] = _load(path) or self._make(path, function, static, args, options)
        # Waited for: the interpreter crashes if it exits while a loaded program runs.
        return jax.block_until_ready(self._programs[key](*args))

    def _make(
        self, path: Path, function: Any, static: Any, args: Any, options: Any
    ) -> Callable[..., Any]:
        lowered = function.lower(*static, *args, **options)
        with _without_jax_cache():
            compiled = lowered.compile()
        # A device whose programs can't be saved, or a full disk, is no reason to stop.
        with contextlib.suppress(Exception):
            _save(path, compiled, args)
            _forget_oldest(self._folder)
        return compiled


@contextlib.contextmanager
def _without_jax_cache() -> Iterator[None]:
    """Compiles anew: what comes out of JAX's own cache can be saved again, but not run again."""
    was = jax.config.values["jax_enable_compilation_cache"]
    try:
        # JAX asks only once in a process whether the cache is used, unless it is reset.
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
        if hashlib.sha256(data).digest() != checksum:  # It might crash, or answer wrongly.
            return None
        program = _unpack(data)
        with contextlib.suppress(OSError):  # Perhaps it may only be read, as in an image.
            path.touch()
        return program
    except Exception:  # Any kind: a damaged file is as good as none.
        return None


def _save(path: Path, compiled: jax.stages.Compiled, args: Any) -> None:
    from jax.experimental import serialize_executable

    data = pickle.dumps(serialize_executable.serialize(compiled))
    # Tried before it counts: one that this process had from JAX's cache, before any store, is such
    # that it can be saved and loaded, but not run.
    jax.block_until_ready(_unpack(data)(*args))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
    temporary.write_bytes(hashlib.sha256(data).digest() + data)
    temporary.replace(path)


def _unpack(data: bytes) -> Callable[..., Any]:
    from jax.experimental import serialize_executable

    return serialize_executable.deserialize_and_load(*pickle.loads(data))


def _forget_oldest(folder: Path) -> None:
    by_age = sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime)
    for path in by_age[:-_MAX_FILES]:
        path.unlink(missing_ok=True)


@functools.cache
def _surroundings() -> str:
    """All beside its arguments that a program depends on: code, libraries, settings, machine."""
    code = [path.read_bytes() for path in sorted(Path(__file__).parents[1].rglob("*.py"))]
    versions = [module.__version__ for module in (jax, jaxlib, flax)]
    device = jax.devices()[0]
    flags = [os.environ.get(name) for name in ("XLA_FLAGS", "LIBTPU_INIT_ARGS")]
    place = [device.platform, device.device_kind, jax.device_count(), _processor(), os.cpu_count()]
    return _digest(code, versions, flags, place, sorted(jax.config.values.items(), key=str))


def _processor() -> str:
    """What the processor can do: programs may use all of it."""
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as info:
        return next((line for line in info if line.startswith(("flags", "Features"))), "")
    return platform.platform() + platform.processor()


def _digest(*things: object) -> str:
    return hashlib.sha256(repr(things).encode()).hexdigest()[:32]
