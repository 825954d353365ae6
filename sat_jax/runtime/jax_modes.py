"""JAX's modes, which a host program may have set for its own code."""

import contextlib
from collections.abc import Iterator

import jax

# Name of the setting, values that change nothing here, and what sets the first of them.
_MODES = (
    ("jax_disable_jit", (False,), jax.disable_jit),
    ("jax_enable_x64", (False,), jax.enable_x64),
    ("jax_debug_nans", (False,), jax.debug_nans),
    ("jax_debug_infs", (False,), jax.debug_infs),  # Streams begin with a peak of -inf dB.
    ("jax_numpy_dtype_promotion", ("standard",), jax.numpy_dtype_promotion),
    ("jax_numpy_rank_promotion", ("allow",), jax.numpy_rank_promotion),
    *(
        (f"jax_{guard.__name__}", ("allow", None), guard)
        for guard in (
            jax.transfer_guard_host_to_device,
            jax.transfer_guard_device_to_device,
            jax.transfer_guard_device_to_host,
        )
    ),
)


@contextlib.contextmanager
def standard_modes() -> Iterator[None]:
    """Runs the body in JAX's standard modes, so that results do not depend on the host program.

    Strict and debugging modes, set by the environment, by `jax.config.update` or by a context
    manager, stay in force outside of the body.
    """
    with contextlib.ExitStack() as stack:
        for name, harmless, mode in _MODES:
            if getattr(jax.config, name) not in harmless:
                stack.enter_context(mode(harmless[0]))  # type: ignore[operator]
        yield
