"""Golden weights as tensors and files, for tests of conversion."""

from typing import Any

import jax
import numpy as np
import torch

from tests.support.golden_models import SMALL, small_config
from tests.support.golden_weights import load_models, state_dict_by_rule

Tensors = dict[str, np.ndarray]

ALL = (*SMALL, "mae")
"""Every small golden model."""


def weights(name: str) -> Tensors:
    """The state dict of a golden model, without the front end's constants."""
    model = load_models()[name]
    return state_dict_by_rule(model["state_dict_shapes"], model["seed"])


def settings_of(name: str) -> dict[str, str]:
    """The settings that the shapes of a golden model do not show."""
    if name == "mae":
        return {}
    config = small_config(name)
    return {"pooling": config.pooling, "target_length": str(config.target_length)}


def as_torch(tensors: Tensors) -> dict[str, torch.Tensor]:
    """The same as PyTorch tensors."""
    return {name: torch.from_numpy(np.array(array)) for name, array in tensors.items()}


def assert_same(actual: Any, desired: Any) -> None:
    """Asserts the same tree, and arrays equal to the bit."""
    assert jax.tree.structure(actual) == jax.tree.structure(desired)
    jax.tree.map(np.testing.assert_array_equal, actual, desired)
