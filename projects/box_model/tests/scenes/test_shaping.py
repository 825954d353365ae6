"""Changes of samples, against tones of known frequency, level and length."""

import numpy as np
import pytest

from projects.box_model.scenes.shaping import (
    active_span,
    cut,
    draw_equaliser,
    fade,
    frame_power,
    loop,
    play,
    set_level,
)
from projects.box_model.tests.scenes.made_up import RATE, band_noise, tone

FLAT = np.ones(129)


def strongest(samples):
    """Returns frequency and amplitude of the strongest tone of the middle second."""
    first = len(samples) // 2 - RATE // 2
    window = np.hanning(RATE)
    spectrum = np.abs(np.fft.rfft(samples[first : first + RATE] * window)) * 2 / window.sum()
    return int(spectrum.argmax()), float(spectrum.max())


@pytest.mark.parametrize("silence", [0.0, 1e-4])
def test_silence_is_trimmed(silence):
    quiet = np.full(RATE, silence)
    first, last = active_span(np.concatenate([quiet, tone(0.5, 700), quiet]))
    assert abs(first - RATE) <= 320 and abs(last - 1.5 * RATE) <= 320
    assert active_span(np.zeros(100)) == (0, 100)


@pytest.mark.parametrize("speed", [0.88, 1.0, 1.14])
def test_speed_changes_length_and_frequency_only(speed):
    played = play(tone(3.0, 1000), speed, FLAT)
    assert played.dtype == np.float32
    # Lengths are rounded to those of fast transforms.
    faster = 3 * RATE / len(played)
    assert faster == pytest.approx(speed, rel=0.02)
    hertz, amplitude = strongest(played)
    assert hertz == pytest.approx(1000 * faster, abs=2)
    assert amplitude == pytest.approx(1.0, abs=0.1)


def test_an_equaliser_scales_each_frequency():
    # Its frequencies are those after the change of speed.
    equaliser = np.linspace(0.0, 1.0, 129)
    for speed in (0.9, 1.0):
        _, amplitude = strongest(play(tone(3.0, 2000), speed, equaliser))
        assert amplitude == pytest.approx(2000 * speed / 8000, rel=0.1)


def test_equalisers_are_mild_and_some_cut_off_an_end():
    rng = np.random.default_rng(0)
    drawn = np.array([draw_equaliser(rng) for _ in range(400)])
    assert np.isfinite(drawn).all() and (drawn > 0).all()
    # Factors at 100 Hz to 7 kHz in decibels; a tilt alone has at most 2 dB per octave.
    decibels = 20 * np.log10(drawn[:, [2, 16, 112]])
    steep = np.abs(np.diff(decibels, axis=1)) / np.log2([8, 7]) > 2.1
    assert 0.1 < steep[:, 0].mean() < 0.35 and 0.1 < steep[:, 1].mean() < 0.3
    assert np.median(abs(decibels[:, 1])) < 1


def test_a_cut_is_anywhere_but_in_a_pause():
    sound = np.concatenate([tone(1.0, 500), np.zeros(5 * RATE), tone(1.0, 900)], dtype=np.float32)
    rng = np.random.default_rng(0)
    heard = set()
    for _ in range(60):
        part = cut(sound, RATE // 2, rng)
        assert len(part) == RATE // 2
        assert frame_power(part).max() > 0.4
        heard.add(int(np.abs(np.fft.rfft(part)).argmax()) * 2)
    assert {500, 900} <= heard
    assert cut(sound, 8 * RATE, rng) is sound


def test_a_loop_has_no_seams():
    rng = np.random.default_rng(1)
    noise = band_noise(2.0, 3000)
    looped = loop(noise, 12 * RATE, rng)
    assert len(looped) == 12 * RATE
    assert np.abs(np.diff(looped)).max() <= 1.2 * np.abs(np.diff(noise)).max()
    power = np.square(looped.reshape(-1, RATE // 10)).mean(1)
    assert power.min() > 0.3 * np.square(noise).mean()
    # It begins anywhere, and repeats.
    assert not np.array_equal(looped[: len(noise)], noise)
    period = len(noise) - len(noise) // 10
    np.testing.assert_array_equal(looped[:period], looped[period : 2 * period])
    # A long recording is heard from a random place on.
    long = np.arange(20 * RATE, dtype=np.float32) + 1e6
    firsts = {float(loop(long, 5 * RATE, rng)[0]) for _ in range(8)}
    assert len(firsts) > 4


def test_levels_are_those_of_the_loudest_frame():
    sound = np.concatenate([0.01 * tone(1.0, 500), tone(0.2, 500)], dtype=np.float32)
    scaled = set_level(sound, -20.0)
    assert 10 * np.log10(frame_power(scaled).max()) == pytest.approx(-20.0, abs=0.01)
    assert 10 * np.log10(frame_power(scaled)[10]) == pytest.approx(-60.0, abs=0.1)


def test_fades_begin_and_end_with_silence():
    sound = np.ones(100, np.float32)
    faded = fade(sound, 10, 20)
    np.testing.assert_allclose(faded[:10], np.arange(10) / 9, rtol=1e-6)
    np.testing.assert_allclose(faded[80:], np.arange(19, -1, -1) / 19, atol=1e-6)
    assert (faded[10:80] == 1).all() and (sound == 1).all()
    np.testing.assert_array_equal(fade(sound, 0, 0), sound)
    assert len(fade(sound[:1], 10, 10)) == 1
