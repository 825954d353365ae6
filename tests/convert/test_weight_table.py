"""The table of tensors: every tensor once, and back without a change."""

import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from sat_jax.convert.weight_table import from_torch, fuse_qkv, is_learned, split_qkv, to_torch
from sat_jax.errors import SatError
from tests.support.golden_models import mae_config, small_config
from tests.support.golden_tensors import ALL, assert_same, weights


@pytest.mark.parametrize("name", ALL)
def test_every_tensor_is_used_once(name: str) -> None:
    learned = {n: x for n, x in fuse_qkv(weights(name)).items() if is_learned(n)}
    ours = flatten_dict(from_torch(weights(name)))
    assert len(ours) == len(learned)
    # Random numbers: a value that is there twice, or missing, would show.
    np.testing.assert_array_equal(
        np.sort(np.concatenate([x.ravel() for x in ours.values()])),
        np.sort(np.concatenate([x.ravel() for x in learned.values()])),
    )


@pytest.mark.parametrize("name", ALL)
def test_back_to_torch_without_a_change(name: str) -> None:
    config = mae_config() if name == "mae" else small_config(name)
    learned = {n: x for n, x in weights(name).items() if is_learned(n)}
    assert_same(to_torch(from_torch(learned), config), learned)


def test_projections_are_split_and_fused() -> None:
    fused = {"blocks.3.attn.qkv.bias": np.arange(6.0), "norm.bias": np.zeros(2)}
    split = split_qkv(fused)
    np.testing.assert_array_equal(split["blocks.3.attn.to_q.bias"], [0, 1])
    np.testing.assert_array_equal(split["blocks.3.attn.to_kv.bias"], [2, 3, 4, 5])
    assert_same(fuse_qkv(split), fused)


def test_unknown_tensors_are_all_listed() -> None:
    tensors = weights("vit_mean") | {"extra": np.ones(3), "xblocks.0.norm1.bias": np.ones(3)}
    with pytest.raises(SatError, match=r"extra, xblocks\.0\.norm1\.bias"):
        from_torch(tensors)
