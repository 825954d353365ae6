"""PyTorch weights to ours and back.

`names` pairs the tensors, `evidence` and `architecture` read the model off them, `settings` are
what people say of it, `files` reads and writes them, `checkpoints` puts these together,
`published` does so for a name;
``python -m sat_jax.convert`` is the command line.
"""

from sat_jax.convert.checkpoints import convert_file, export_file
from sat_jax.convert.published import load_published

__all__ = ["convert_file", "export_file", "load_published"]
