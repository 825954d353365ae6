"""Levels do not depend on how a stream is cut into blocks."""

import numpy as np
import pytest

from sat_jax.events import LevelMeter


def test_levels_are_those_of_each_tenth_of_a_second():
    samples = np.random.default_rng(0).uniform(-1, 1, 16_000).astype(np.float32)
    meter, levels = LevelMeter(16_000, first=-800), []
    for block in np.split(samples, [10, 10, 1_700, 1_701, 9_000]):
        levels += meter.push(block)
    assert [level.start for level in levels] == pytest.approx(np.arange(10) / 10 - 0.05)
    assert [level.end for level in levels] == pytest.approx(np.arange(1, 11) / 10 - 0.05)
    expected = [np.sqrt(np.mean(part.astype(float) ** 2)) for part in np.split(samples, 10)]
    assert [level.rms for level in levels] == pytest.approx(expected)
    peaks = [np.abs(part).max() for part in np.split(samples, 10)]
    assert [level.peak for level in levels] == pytest.approx(peaks)
