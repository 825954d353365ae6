"""The masked autoencoder on inputs of other lengths than its target, and its masks."""

import dataclasses

import jax
import numpy as np
import pytest

from sat_jax.config import MaeConfig, ModelConfig
from sat_jax.errors import SatError
from sat_jax.models.mae import MaskedAutoencoder, init_mae_variables, masking_from_noise
from sat_jax.training.objectives import mask_noise

ENCODER = ModelConfig(width=64, depth=1, target_length=64, pooling="token")
LONG = MaeConfig(encoder=ENCODER, decoder_width=64, decoder_depth=1)
RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def variables():
    """Returns weights of `LONG` whose positions differ."""
    fresh = jax.jit(init_mae_variables, static_argnums=0)(LONG, jax.random.key(0))
    return jax.tree.map(lambda x: x + 0.1 * np.abs(RNG.standard_normal(x.shape)), fresh)


def test_a_short_input_has_the_first_columns_of_the_positions(variables):
    short = dataclasses.replace(LONG, encoder=dataclasses.replace(ENCODER, target_length=32))
    cut = jax.tree.map(lambda x: x, variables)
    params = cut["params"]
    params["encoder"]["time_pos_embed"] = params["encoder"]["time_pos_embed"][:2]
    of_cls, grid = params["decoder"]["pos_embed"][:1], params["decoder"]["pos_embed"][1:]
    kept = [4 * row + column for row in range(4) for column in range(2)]
    params["decoder"]["pos_embed"] = np.concatenate([of_cls, grid[np.array(kept)]])
    log_mel, noise = RNG.standard_normal((2, 64, 39)), RNG.random((2, 8))
    have = MaskedAutoencoder(LONG).apply(variables, log_mel, noise)
    want = MaskedAutoencoder(short).apply(cut, log_mel[..., :32], noise)
    for array, other in zip(have, want, strict=True):
        np.testing.assert_allclose(array, other, atol=1e-5)


def test_frames_after_the_target_are_ignored(variables):
    log_mel, noise = RNG.standard_normal((2, 64, 90)), RNG.random((2, 16))
    have = MaskedAutoencoder(LONG).apply(variables, log_mel, noise)
    want = MaskedAutoencoder(LONG).apply(variables, log_mel[..., :64], noise)
    for array, other in zip(have, want, strict=True):
        np.testing.assert_array_equal(array, other)


@pytest.mark.parametrize(("frames", "patches"), [(39, 8), (64, 16), (90, 16)])
def test_there_is_a_random_number_for_each_patch(variables, frames, patches):
    log_mel = RNG.standard_normal((3, 64, frames))
    noise = np.asarray(mask_noise(ENCODER, log_mel, jax.random.key(0)))
    assert noise.shape == (3, patches) and len(np.unique(noise)) == 3 * patches
    with pytest.raises(SatError, match=rf"\[3, 5\].*\[3, {patches}\]"):
        MaskedAutoencoder(LONG).apply(variables, log_mel, noise[:, :5])


def test_the_patches_with_the_lowest_noise_are_kept():
    noise = RNG.random((4, 10)).astype(np.float32)
    kept, restore, mask = masking_from_noise(noise, 0.75)  # int(2.5) of 10 are kept.
    for row in range(4):
        order = sorted(range(10), key=lambda patch: noise[row, patch])
        assert kept[row].tolist() == order[:2]
        assert mask[row].tolist() == [patch in order[2:] for patch in range(10)]
        assert [order[place] for place in restore[row]] == list(range(10))
