"""Converts PyTorch weights to checkpoints and back.

`files` reads and writes files, `weight_table` names and lays out the arrays, `architecture` and
`settings` find the config, `checkpoints` combines these, `published` does so for a model's name.
"""

from sat_jax.convert.checkpoints import convert_file, export_file
from sat_jax.convert.published import load_published

__all__ = ["convert_file", "export_file", "load_published"]
