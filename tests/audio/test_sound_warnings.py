"""Warnings of an improbable scale and of cancelled channels."""

import io
import warnings

import numpy as np
import pytest

from data_pipeline.sources.source import warn_of_first
from sat_jax.audio import read_blocks, read_live_blocks
from sat_jax.audio.mono import SoundInfo, mono_blocks
from sat_jax.audio.sound_warnings import SoundWarning
from sat_jax.errors import SatError
from tests.support.sounds import noise, read, write

RATE = 16_000


def warnings_of(samples, *, rate=RATE, block=4_000, **options):
    """Returns the samples and the warnings of reading blocks."""
    lines = []
    blocks = [samples[start : start + block] for start in range(0, len(samples), block)]
    info = SoundInfo(name="a.wav", rate=rate, channels=samples.shape[1])
    given = {"channel": None, **options}
    mono = mono_blocks(blocks, info, sample_rate=rate, warn=lines.append, **given)
    result = np.concatenate(list(mono))
    assert all(line.startswith("a.wav: ") and "\n" not in line for line in lines)
    return result, lines


def independent(channels, seconds=3.0):
    return noise(int(seconds * RATE), channels)


def speech_like(seconds=3.0):
    """Stereo as records have it: a shared voice, two different sides."""
    voice, sides = independent(1, seconds), noise(int(seconds * RATE), 2, seed=1)
    return voice + 0.5 * sides


@pytest.mark.parametrize("block", [320, 4_000, 10**6])
@pytest.mark.parametrize("scale", [32_768, 2**23, 2**31])
def test_integers_stored_as_floats_are_named(scale, block):
    samples = noise(30_000)
    have, lines = warnings_of(samples * np.float32(scale), block=block)
    np.testing.assert_array_equal(have, samples[:, 0] * np.float32(scale))
    assert len(lines) == 1 and f"{scale} for " in lines[0]
    have, lines = warnings_of(samples * np.float32(scale), block=block, full_scale=scale)
    np.testing.assert_array_equal(have, samples[:, 0])
    assert lines == []


def test_16_bit_numbers_that_were_divided_twice_are_named():
    samples = noise(30_000)
    have, lines = warnings_of(samples / np.float32(32_768), full_scale=1 / 32_768)
    np.testing.assert_array_equal(have, samples[:, 0])
    assert lines == []
    _, lines = warnings_of(samples / np.float32(32_768))
    decibels = -20 * np.log10(np.abs(samples).max() / 32_768)
    assert len(lines) == 1 and f"{decibels:.0f} dB" in lines[0] and "3.05e-5" in lines[0]


CANCELLED = {
    "inverted": lambda x: (np.concatenate([x, -x], 1), "0 and 1"),
    "nearly inverted": lambda x: (np.concatenate([x, -0.85 * x], 1), "0 and 1"),
    "inverted, beside noise": lambda x: (
        np.concatenate([x, -x], 1) + 0.1 * independent(2),
        "0 and 1",
    ),
    "inverted, with an offset": lambda x: (np.concatenate([x, -x], 1) + 0.3, "0 and 1"),
    "a pair of four": lambda x: (
        np.concatenate([noise(len(x), 2, seed=5), x, -x], 1),
        "2 and 3",
    ),
    "front of 5.1": lambda x: (
        np.concatenate([x, -x, 0.3 * noise(len(x), 4, seed=5)], 1),
        "0 and 1",
    ),
    "integers": lambda x: (np.concatenate([x, -x], 1) * 20, "0 and 1"),
}


@pytest.mark.parametrize("how", CANCELLED)
@pytest.mark.parametrize("seconds", [0.5, 3.0, 25.0])
def test_channels_that_cancel_are_named(how, seconds):
    samples, pair = CANCELLED[how](independent(1, 3.0))
    samples = np.tile(samples, (9, 1))[: int(seconds * RATE)].astype(np.float32)
    have, lines = warnings_of(samples)
    np.testing.assert_array_equal(have, samples.mean(axis=1))
    first = pair[0]
    assert len(lines) == 1 and pair in lines[0] and lines[0].endswith(f"--channel {first}")
    assert warnings_of(samples, channel=int(first))[1] == []


def test_channels_that_cancel_in_a_part_are_named_while_it_is_read():
    x = independent(1, 15.0)
    same, inverted = np.concatenate([x, x], 1), np.concatenate([x, -x], 1)
    blocks, lines = [same] * 4 + [inverted] * 4, []
    info = SoundInfo(name="a.wav", rate=RATE, channels=2)
    read = mono_blocks(blocks, info, sample_rate=RATE, channel=None, warn=lines.append)
    told = [bool(lines) for _ in read]
    assert told == [False] * 4 + [True] * 4
    assert len(lines) == 1 and "from 60 s on" in lines[0]


HARMLESS = {
    "records": lambda: speech_like(),
    "mono in two channels": lambda: np.repeat(independent(1), 2, axis=1),
    "one silent channel": lambda: independent(1) * np.float32([1, 0]),
    "quiet, inverted crosstalk": lambda: independent(1) * np.float32([1, -0.1]),
    "wide": lambda: independent(1) * np.float32([1, -1]) + 0.5 * noise(3 * RATE, 2, seed=3),
    "independent": lambda: independent(6),
    "silence": lambda: np.zeros((RATE, 2), np.float32),
    "opposite offsets": lambda: np.repeat(independent(1), 2, axis=1) + np.float32([0.5, -0.5]),
    "inverted noise of a converter": lambda: independent(1) * np.float32([1e-4, -1e-4]),
    "clipped": lambda: np.clip(independent(2) * 100, -1, 1),
    "loud mix": lambda: independent(2) * 30,
    "one quantization step": lambda: np.float32([[0], [2**-15]]),
    "almost decoded silence": lambda: np.full((100, 1), 1e-30, np.float32),
}


@pytest.mark.parametrize("how", HARMLESS)
def test_other_sound_is_read_without_a_word(how):
    samples = HARMLESS[how]()
    assert warnings_of(samples)[1] == []
    assert warnings_of(np.tile(samples, (5, 1)))[1] == []


def test_python_gets_warnings_that_it_can_turn_into_errors(tmp_path):
    x = noise(RATE)
    path = write(tmp_path / "a.wav", np.concatenate([x, -x], 1))
    with pytest.warns(SoundWarning, match="a.wav: .*--channel 0"):
        read(path)
    with pytest.raises(SoundWarning):
        read(path)  # Warnings are errors in tests.
    np.testing.assert_array_equal(read(path, channel=1), -x[:, 0])
    path = write(tmp_path / "b.wav", x * 32_768)
    with pytest.warns(SoundWarning, match="b.wav: .*--full_scale 32768"):
        read(path)
    np.testing.assert_array_equal(read(path, full_scale=32_768), x[:, 0])


def test_pipes_are_checked_too():
    x = np.random.default_rng(0).integers(-9_000, 9_000, (RATE, 1)).astype("<i2")
    lines = []
    stream = io.BytesIO(np.concatenate([x, -x], 1).tobytes())
    list(read_live_blocks(stream, name="pipe", channels=2, warn=lines.append))
    assert len(lines) == 1 and lines[0].startswith("pipe: channels 0 and 1")


def test_invalid_samples_stay_errors_without_other_warnings(tmp_path):
    samples = np.repeat(noise(RATE), 2, axis=1)
    for bad in ((np.inf, -np.inf), (np.nan, 0), (3e38, 3e38), (1e11, 0)):
        samples[8_000] = bad
        path = write(tmp_path / "a.wav", samples)
        with warnings.catch_warnings(), pytest.raises(SatError, match=r"0\.500 s"):
            warnings.simplefilter("error")
            list(read_blocks(path, warn=lambda line: pytest.fail(line)))


def test_of_many_clips_one_is_named(caplog, monkeypatch):
    monkeypatch.setattr("absl.logging._log_counter_per_token", {})  # Other tests log too.
    for name in ("a", "b", "c"):
        warn_of_first(f"{name}.wav: channels 0 and 1 cancel each other")
    assert len(caplog.messages) == 1 and caplog.messages[0].startswith("a.wav: channels")
