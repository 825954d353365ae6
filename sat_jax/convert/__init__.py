"""Converts PyTorch weights to checkpoints and back.

`tensor_files` reads and writes files, `weight_table` names and lays out the arrays, `architecture`
and `settings` find the config, `checkpoints` combines these, `published` does so for a model's
name.
"""

from typing import TYPE_CHECKING

from sat_jax.runtime.lazy_names import lazy_names

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

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
