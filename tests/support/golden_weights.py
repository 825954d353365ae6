"""The made-up weights behind the golden numbers: each tensor follows from its name and a seed."""

import json
import math
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

GOLDEN = Path(__file__).parents[1] / "golden"
"""Folder of the golden files."""

_FRONT_END = ("front_end.", "encoder.front_end.")


def load_models() -> dict[str, dict[str, Any]]:
    """Reads the small models' constructor arguments, weight seeds and state-dict shapes.

    Returns:
      Per model name: "kind" ("sat", "vit" or "mae"), "seed", "state_dict_shapes" and the
      constructor's arguments. The entry "full_size" holds only the registry models' "seed".
    """
    models: dict[str, dict[str, Any]] = json.loads((GOLDEN / "models.json").read_text("utf-8"))
    return models


def state_dict_by_rule(shapes: Mapping[str, Iterable[int]], seed: int) -> dict[str, np.ndarray]:
    """Makes the state dict that the golden numbers were computed with.

    Args:
      shapes: shape of each tensor by its PyTorch name.
      seed: the model's weight seed.

    Returns:
      float32 arrays by name (`num_batches_tracked` is int64). The front end's window and
      filterbank are constants, so they are left out.
    """
    return {
        name: _tensor_by_rule(name, tuple(shape), seed)
        for name, shape in shapes.items()
        if not name.startswith(_FRONT_END)
    }


def _tensor_by_rule(name: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    if name.endswith("num_batches_tracked"):
        return np.full(shape, 7, np.int64)
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    z = np.asarray(rng.standard_normal(shape), np.float32)
    if name.endswith("running_mean"):
        return -20 + 5 * z
    if name.endswith("running_var"):
        return 100 * (1 + 0.25 * np.tanh(z))
    if name.endswith("weight") and len(shape) == 1:
        return 1 + 0.1 * z
    if name.endswith("weight"):
        # Divided in float64, as the golden checkpoints were, to match them to the last bit.
        return (z.astype(np.float64) / math.sqrt(math.prod(shape[1:]))).astype(np.float32)
    return 0.1 * z
