"""Losses, compared with PyTorch's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from sat_jax.training.losses import binary_cross_entropy, normalize_patches
from sat_jax.training.objectives import tagging_loss

torch_loss = torch.nn.functional.binary_cross_entropy


def test_cross_entropy_is_that_of_pytorch_in_value_and_gradient():
    rng = np.random.default_rng(0)
    probs = np.concatenate([rng.random(40), [1e-11, 1e-7, 1 - 1e-6, 1 - 2.0**-24]])
    probs = probs.astype(np.float32)[None]
    target = rng.random(probs.shape).astype(np.float32)
    theirs = torch.tensor(probs.astype(np.float64), requires_grad=True)
    loss = torch_loss(theirs, torch.tensor(target).double())
    loss.backward()
    ours, grad = jax.value_and_grad(binary_cross_entropy)(jnp.asarray(probs), target)
    np.testing.assert_allclose(ours, loss.item(), rtol=1e-6)
    np.testing.assert_allclose(grad, theirs.grad, rtol=1e-5)


@pytest.mark.parametrize("target", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("prob", [0.0, 1.0])
def test_cross_entropy_is_finite_at_the_ends(prob, target):
    probs = jnp.full((1, 1), prob)
    loss, grad = jax.value_and_grad(binary_cross_entropy)(probs, jnp.full((1, 1), target))
    assert np.isfinite(loss) and np.isfinite(grad).all()
    assert (loss < 1e-6) == (prob == target)


def test_patches_are_normalised_as_published_also_in_silence():
    """What is added to the variance shows only where a patch hardly varies."""
    rng = np.random.default_rng(0)
    patches = rng.standard_normal((5, 256)) * [[0.0], [1e-4], [1e-3], [1e-2], [10.0]] - 7.0
    theirs = torch.tensor(patches.astype(np.float32)).double()
    want = (theirs - theirs.mean(-1, keepdim=True)) / (theirs.var(-1, keepdim=True) + 1e-6).sqrt()
    np.testing.assert_allclose(normalize_patches(jnp.float32(patches)), want, atol=2e-3)


def test_chunks_have_targets_of_their_own():
    rng = np.random.default_rng(0)
    probs = rng.uniform(0.01, 0.99, (3, 4, 5)).astype(np.float32)
    target = rng.random((4, 3, 5)).astype(np.float32)
    of_chunks = torch_loss(torch.tensor(probs), torch.tensor(target.swapaxes(0, 1)))
    ours = tagging_loss(jnp.asarray(probs), jnp.asarray(target), per_chunk=True)
    np.testing.assert_allclose(ours, of_chunks.item(), rtol=1e-5)
    of_means = torch_loss(torch.tensor(probs.mean(0)), torch.tensor(target.mean(1)))
    ours = tagging_loss(jnp.asarray(probs), jnp.asarray(target), per_chunk=False)
    np.testing.assert_allclose(ours, of_means.item(), rtol=1e-5)
