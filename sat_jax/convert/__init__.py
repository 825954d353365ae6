"""Converts PyTorch weights to checkpoints and back.

`tensor_files` reads and writes files, `weight_table` names and lays out the arrays, `architecture`
and `settings` find the config, `checkpoints` combines these, `published` does so for a model's
name.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sat_jax.convert.checkpoints import convert_file as convert_file
    from sat_jax.convert.checkpoints import export_file as export_file
    from sat_jax.convert.published import load_published as load_published

_HOMES = {  # Imported when asked for: JAX takes a second.
    "convert_file": "checkpoints",
    "export_file": "checkpoints",
    "load_published": "published",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
