"""Echoes and noises of the scenes."""

import numpy as np

from projects.box_model.scenes.rooms import add_echoes, draw_noise
from projects.box_model.tests.scenes.made_up import RATE


def test_echoes_follow_the_sound_and_decay():
    click = np.zeros(RATE // 10, np.float32)
    click[0] = 1.0
    lengths, relative = [], []
    for seed in range(30):
        heard = add_echoes(click, 0, np.random.default_rng(seed))
        assert heard.dtype == np.float32 and abs(heard[0] - 1) < 1e-5
        # Between 2 and 20 ms pass before the first echo.
        assert np.abs(heard[1 : RATE // 500]).max() < 1e-5
        room = len(heard) - len(click) + 1
        lengths.append(room / RATE)
        power = np.square(heard[1:room])
        relative.append(10 * np.log10(power.sum()))
        # The second half decays by 30 dB.
        quarter = room // 4
        first, third = power[quarter : 2 * quarter].mean(), power[3 * quarter :].mean()
        assert 24 < 10 * np.log10(first / third) < 36
    assert 0.15 < min(lengths) < 0.4 and 0.6 < max(lengths) <= 0.9
    assert -12.5 < min(relative) < -6 and -2 < max(relative) < 3.5


def test_splits_have_other_rooms_and_noises():
    sound = np.ones(100, np.float32)
    first, second = (add_echoes(sound, split, np.random.default_rng(3)) for split in (0, 2))
    assert not np.array_equal(first[:200], second[:200])
    first, second = (draw_noise(4000, split, np.random.default_rng(3)) for split in (0, 2))
    assert not np.array_equal(first, second)


def test_noises_are_quiet_and_of_many_colours():
    levels, slopes = [], []
    for seed in range(60):
        noise = draw_noise(RATE, 1, np.random.default_rng(seed))
        levels.append(10 * np.log10(np.square(noise).mean()))
        power = np.square(np.abs(np.fft.rfft(noise)))
        slopes.append(np.log10(power[100:200].mean() / power[1000:2000].mean()))
    assert -75.1 < min(levels) < -68 and -45 < max(levels) < -37.9
    # From white to brown: power falls by 0 to 20 dB per decade.
    assert -0.2 < min(slopes) < 0.5 and 1.5 < max(slopes) < 2.2
