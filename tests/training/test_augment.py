"""Augmentation: what changes, and how far."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sat_jax.errors import SatError
from sat_jax.training.augment import AugmentConfig, change_waveforms, mixup, spec_augment

KEY = jax.random.key(3)
WAVES = np.random.default_rng(0).standard_normal((64, 1600)).astype(np.float32)


def test_nothing_changes_by_default():
    assert (change_waveforms(KEY, WAVES, AugmentConfig(), sample_rate=16_000) == WAVES).all()
    spectrogram = WAVES.reshape(64, 16, 100)
    assert (spec_augment(KEY, spectrogram, AugmentConfig()) == spectrogram).all()


def test_shifts_are_rotations_within_bounds():
    config = AugmentConfig(time_shift=0.01)
    shifted = np.asarray(change_waveforms(KEY, WAVES, config, sample_rate=1_000))
    shifts = set()
    for before, after in zip(WAVES, shifted, strict=True):
        (shift,) = [s for s in range(-10, 11) if (np.roll(before, s) == after).all()]
        shifts.add(shift)
    assert {-10, 10} <= shifts and len(shifts) > 15


def test_gain_and_polarity_scale_whole_windows():
    config = AugmentConfig(gain_db=6.0, flip_polarity=True)
    ratio = np.asarray(change_waveforms(KEY, WAVES, config, sample_rate=16_000)) / WAVES
    np.testing.assert_allclose(ratio, ratio[:, :1].repeat(1600, axis=1), rtol=1e-5)
    gains_db = 20 * np.log10(np.abs(ratio[:, 0]))
    assert -6.001 < gains_db.min() < -5 and 5 < gains_db.max() < 6.001
    assert 16 < (ratio[:, 0] < 0).sum() < 48


def test_mixup_mixes_waveforms_and_targets_alike():
    target = np.random.default_rng(1).random((64, 3, 5)).astype(np.float32)
    waves, targets = mixup(KEY, jnp.asarray(WAVES), jnp.asarray(target), 0.5)
    shares = []
    for row in range(64):
        mine, other = WAVES[row].astype(float), WAVES[row - 1].astype(float)
        share = np.dot(np.asarray(waves[row]) - other, mine - other) / np.dot(
            mine - other, mine - other
        )
        np.testing.assert_allclose(waves[row], share * mine + (1 - share) * other, atol=1e-5)
        np.testing.assert_allclose(
            targets[row], share * target[row] + (1 - share) * target[row - 1], atol=1e-5
        )
        shares.append(share)
    assert min(shares) + 1e-6 >= 0.5 and max(shares) <= 1 + 1e-6 and np.std(shares) > 0.05


@pytest.mark.parametrize("alpha", [0.2, 1.0, 5.0])
def test_mixup_weights_are_the_larger_part_of_beta_weights(alpha):
    target = np.tile(np.float32([[0.0], [1.0]]), (2000, 1))
    _, mixed = mixup(KEY, jnp.zeros((4000, 1)), jnp.asarray(target), alpha)
    weights = np.abs(np.asarray(mixed) - (1 - target))[:, 0]
    drawn = np.random.default_rng(0).beta(alpha, alpha, 100_000)
    shares = np.linspace(0.1, 0.9, 9)
    wanted = np.quantile(np.maximum(drawn, 1 - drawn), shares)
    np.testing.assert_allclose(np.quantile(weights, shares), wanted, atol=0.03)


def test_masks_are_bands_of_the_right_number_and_size():
    ones = np.ones((200, 64, 100), np.float32)
    config = AugmentConfig(time_masks=1, time_mask_frames=20, freq_masks=1, freq_mask_bins=8)
    masked = np.asarray(spec_augment(KEY, ones, config))
    widths, heights = [], []
    for image in masked:
        masked_frames = np.flatnonzero((image == 0).all(0))
        masked_bins = np.flatnonzero((image == 0).all(1))
        expected = np.ones_like(image)
        expected[:, masked_frames] = 0
        expected[masked_bins] = 0
        np.testing.assert_array_equal(image, expected)
        for places in (masked_frames, masked_bins):
            assert (np.diff(places) == 1).all()  # One band.
        widths.append(len(masked_frames))
        heights.append(len(masked_bins))
    assert (min(widths), max(widths)) == (0, 20) and (min(heights), max(heights)) == (0, 8)


def test_masks_have_every_width_at_every_place():
    config = AugmentConfig(time_masks=1, time_mask_frames=4)
    masked = np.asarray(spec_augment(KEY, np.ones((4000, 2, 20), np.float32), config))
    bands = {tuple(np.flatnonzero(row == 0)) for row in masked[:, 0]}
    assert bands == {tuple(range(i, i + width)) for width in range(5) for i in range(21 - width)}


def test_masks_of_one_example_do_not_depend_on_the_others():
    config = AugmentConfig(time_masks=2, freq_masks=2)
    first = spec_augment(KEY, jnp.ones((4, 64, 100)), config)
    second = spec_augment(KEY, jnp.ones((4, 64, 100)).at[1:].set(7.0), config)
    np.testing.assert_array_equal(first[0], second[0])


def test_negative_values_are_refused():
    with pytest.raises(SatError, match=r"augment.gain_db=-1"):
        AugmentConfig(gain_db=-1)
