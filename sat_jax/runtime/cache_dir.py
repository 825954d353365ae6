"""Where this system keeps what can be had again: weights and compiled programs."""

import os
from pathlib import Path

import platformdirs


def cache_dir() -> Path:
    """The folder named by ``SAT_JAX_CACHE`` if that is set, else the system's usual place."""
    given = os.environ.get("SAT_JAX_CACHE")
    return Path(given).expanduser() if given else platformdirs.user_cache_path("sat_jax")


def keep_compiled_programs() -> None:
    """Keeps what XLA compiles on disk, so that the next start of a program need not compile.

    A folder that the user gave to JAX (``JAX_COMPILATION_CACHE_DIR``) stays the one.
    """
    import jax

    if jax.config.values["jax_compilation_cache_dir"] is not None:
        return
    jax.config.update("jax_compilation_cache_dir", str(cache_dir() / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
