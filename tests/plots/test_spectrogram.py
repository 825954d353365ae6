import numpy as np
import pytest

from sat_jax.plots.spectrogram import SpectrogramPool, group_max


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_group_max_is_a_plain_loop(size):
    values = np.random.default_rng(size).normal(size=(3, 20))
    expected = [values[:, i : i + size].max(axis=1) for i in range(0, 20, size)]
    np.testing.assert_array_equal(group_max(values, size), np.stack(expected, axis=1))


@pytest.mark.parametrize("seed", range(8))
def test_pool_does_not_depend_on_how_frames_arrive(seed):
    rng = np.random.default_rng(seed)
    frames = rng.normal(size=(4, int(rng.integers(1, 400)))).astype(np.float32)
    pool = SpectrogramPool(0.01, max_columns=16)
    cuts = np.sort(rng.integers(0, frames.shape[1] + 1, 10))
    for part in np.split(frames, cuts, axis=1):
        pool.add(part)
    columns = pool.columns()
    assert columns.shape[1] <= 16
    assert columns.shape[1] > 8 or pool.frames_per_column == 1
    np.testing.assert_array_equal(columns, group_max(frames, pool.frames_per_column))


def test_pool_keeps_a_click_in_three_hours():
    pool = SpectrogramPool(0.01)
    for minute in range(180):
        frames = np.full((64, 6000), -90.0, np.float32)
        if minute == 100:
            frames[:, 17] = 5.0
        pool.add(frames)
    columns = pool.columns()
    assert columns.shape[1] <= 2000
    loud = np.flatnonzero(columns.max(axis=0) == 5.0)
    np.testing.assert_array_equal(loud, [(100 * 6000 + 17) // pool.frames_per_column])
