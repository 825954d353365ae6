"""Audio files, against one-shot libsndfile and soxr, and every kind of damage.

Damage of Ogg files, and files that ffmpeg decodes, have tests of their own.
"""

import os
import re
import struct
import subprocess
import sys
import threading
import tracemalloc

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from sat_jax.audio import duration_seconds, read_blocks
from sat_jax.errors import SatError
from tests.support.sounds import FORMATS, RATES, SETTINGS, error_of, expected, noise, read, write

ODD_CHUNK = b"note" + struct.pack("<I", 3) + b"odd\0" + b"data"


def wav_bytes(data, *, rate=16_000, channels=1, data_size=None, riff_size=None):
    """A 16-bit WAV file whose header may lie."""
    data_size = len(data) if data_size is None else data_size
    riff_size = 36 + len(data) if riff_size is None else riff_size
    bytes_per_second = min(rate * channels * 2, 2**32 - 1)
    layout = struct.pack("<HHIIHH", 1, channels, rate, bytes_per_second, 2 * channels, 16)
    head = b"RIFF" + struct.pack("<I", riff_size) + b"WAVEfmt " + struct.pack("<I", 16) + layout
    return head + b"data" + struct.pack("<I", data_size) + data


def test_16_bit_samples_are_exact(tmp_path):
    samples = np.arange(-32_768, 32_768).astype(np.int16)
    soundfile.write(tmp_path / "a.wav", samples, 16_000, subtype="PCM_16")
    result = read(tmp_path / "a.wav")
    assert result.dtype == np.float32
    np.testing.assert_array_equal(result, samples.astype(np.float64) / 32_768)


@pytest.mark.parametrize("block_seconds", [0.02, 0.1, 1.0, 60.0])
@pytest.mark.parametrize(("ending", "file_format", "subtype"), FORMATS)
def test_every_format_reads_as_at_once(tmp_path, ending, file_format, subtype, block_seconds):
    # Block lengths are whole Opus packets: seeking between blocks would garble them.
    path = write(tmp_path / f"a.{ending}", noise(40_007, 2), 16_000, file_format, subtype)
    whole, rate = soundfile.read(path, dtype="float32", always_2d=True)
    result = read(path, block_seconds=block_seconds)
    np.testing.assert_allclose(result, expected(whole, rate), atol=1e-6)
    assert duration_seconds(path) == pytest.approx(len(whole) / rate, abs=0.1)


@SETTINGS
@given(
    rate=st.sampled_from(RATES),
    frames=st.integers(1, 30_000),
    channels=st.integers(1, 8),
    block_seconds=st.floats(1e-3, 3.0),
)
def test_any_rate_length_and_channels(folder, rate, frames, channels, block_seconds):
    samples = noise(frames, channels)
    path = write(folder / "any.wav", samples, rate)
    # A file that is shorter than one sample of the result is as if silence followed.
    shortest = -(-rate // 16_000)
    want = expected(np.pad(samples, ((0, max(0, shortest - frames)), (0, 0))), rate)
    result = read(path)
    assert len(result) > 0
    np.testing.assert_allclose(result, want, atol=1e-6)
    assert abs(len(result) - frames * 16_000 / rate) <= 1
    np.testing.assert_array_equal(read(path, block_seconds=block_seconds), result)


def test_channel_is_counted_from_zero(tmp_path):
    samples = noise(1_000, 3)
    path = write(tmp_path / "a.wav", samples)
    for channel in range(3):
        np.testing.assert_array_equal(read(path, channel=channel), samples[:, channel])
    for channel in (-1, 3):
        message = error_of(path, channel=channel)
        assert f"channel {channel}:" in message and "0 to 2" in message
    assert "use 0, the only one" in error_of(write(tmp_path / "mono.wav", noise(1_000)), channel=3)


def test_other_target_rate(tmp_path):
    samples = noise(10_000)
    path = write(tmp_path / "a.wav", samples, 44_100)
    np.testing.assert_array_equal(read(path, sample_rate=44_100), samples[:, 0])


def test_memory_does_not_grow_with_length(tmp_path):
    path = tmp_path / "long.wav"
    with soundfile.SoundFile(path, "w", 8_000, 1, "PCM_16") as file:
        for _ in range(60):
            file.write(np.zeros(80_000, np.int16))
    next(read_blocks(path)).sum()
    tracemalloc.start()
    samples = sum(len(block) for block in read_blocks(path))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert samples == 600 * 16_000
    assert peak < 2e6


def test_light_import():
    code = "import sys, sat_jax.audio; print({'librosa', 'numba', 'torch'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"


def test_named_pipe(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    content = wav_bytes(bytes(2_000), data_size=2**32 - 1)
    writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=(content,))
    writer.start()
    assert len(read(tmp_path / "pipe")) == 1_000
    writer.join()
    assert duration_seconds(tmp_path / "pipe") is None
    error_of(os.devnull)


@pytest.mark.parametrize(
    ("content", "value"),
    [
        (b"", "0 bytes"),
        (b"<html>not found</html>\n" * 100, "ffmpeg"),
        (bytes(5_000), "ffmpeg"),
        (wav_bytes(b""), ""),
        (wav_bytes(bytes(100), channels=0), "zero channels"),
        (wav_bytes(bytes(100), channels=2_000), "1024 channels"),
        (wav_bytes(bytes(100), rate=0), "sample rate"),
        (wav_bytes(bytes(100), rate=1), " 1 Hz"),
        (wav_bytes(bytes(100), rate=10**6), " 1000000 Hz"),
        (wav_bytes(bytes(100), rate=2**32 - 1), "sample rate"),
        (wav_bytes(bytes(1_000), data_size=32_000), "1000 of 32000 bytes"),
        (wav_bytes(bytes(9), data_size=99).replace(b"data", ODD_CHUNK), "9 of 99 bytes"),
        (wav_bytes(b"", data_size=32_000), "0 of 32000 bytes"),
        (wav_bytes(b"")[:20], "ffmpeg"),
        (wav_bytes(b"")[:36], "header"),
    ],
)
@pytest.mark.parametrize("name", ["a.wav", "a.mp3", "no_ending"])
def test_bad_content(tmp_path, capfd, name, content, value):
    (tmp_path / name).write_bytes(content)
    assert value in error_of(tmp_path / name)
    assert capfd.readouterr().err == ""
    duration_seconds(tmp_path / name)  # It serves a progress bar and must not fail.


def test_not_a_file(tmp_path):
    assert "No such file" in error_of(tmp_path / "missing.wav")
    assert "directory" in error_of(tmp_path)
    assert duration_seconds(tmp_path / "missing.wav") is None


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_the_first_invalid_sample_is_named(tmp_path, value):
    samples = noise(50_000, 2)
    samples[24_000:, 1] = value
    path = write(tmp_path / "a.wav", samples, 8_000)
    assert "3.000 s" in error_of(path, block_seconds=0.7)
    before = []
    with pytest.raises(SatError):
        before.extend(read_blocks(path, sample_rate=8_000))
    np.testing.assert_allclose(np.concatenate(before), samples[:24_000].mean(1), atol=1e-6)
    assert len(read(path, channel=0)) == 100_000


@pytest.mark.parametrize(
    ("file_format", "subtype"), [pair[1:] for pair in FORMATS if pair[1] != "WAVEX"]
)
@pytest.mark.parametrize("block_seconds", [0.1, 4.0])
def test_a_truncated_file_is_read_up_to_its_end(tmp_path, file_format, subtype, block_seconds):
    path = write(tmp_path / "whole", noise(80_000), 16_000, file_format, subtype)
    content = path.read_bytes()
    (tmp_path / "cut").write_bytes(content[: len(content) * 3 // 5 + 1])
    blocks = []
    with pytest.raises(SatError, match=re.escape(f"{tmp_path / 'cut'}: ")):
        for block in read_blocks(tmp_path / "cut", block_seconds=block_seconds):
            blocks.append(block)
    samples = np.concatenate(blocks)
    # Some encoders pad the end, or write pages of a second.
    assert 30_000 < len(samples) < 50_000
    np.testing.assert_array_equal(samples, read(path)[: len(samples)])


def test_flac_cut_between_frames(tmp_path):
    path = write(tmp_path / "a.flac", noise(80_000), 16_000, "FLAC", "PCM_16")
    content = path.read_bytes()
    # STREAMINFO's length is raised by one instead: whole frames, but too few.
    total = int.from_bytes(content[21:26]) + 1
    path.write_bytes(content[:21] + total.to_bytes(5) + content[26:])
    assert "5.00 s of 5.00 s" in error_of(path)


def test_a_truncated_mp3_header(tmp_path):
    path = write(tmp_path / "a.mp3", noise(16_000), 16_000, "MP3", "MPEG_LAYER_III")
    path.write_bytes(path.read_bytes()[:30])
    assert "MP3" in error_of(path)


@pytest.mark.parametrize("size", [0, 0xFFFF_FFFF, 0x7FFF_F000, 0x8000_0000])
@pytest.mark.parametrize("channels", [1, 3])
def test_wav_header_of_unknown_length(tmp_path, size, channels):
    samples = np.random.default_rng(0).integers(-9, 9, (3_000, channels), np.int16)
    content = wav_bytes(samples.tobytes(), channels=channels, data_size=size, riff_size=size)
    (tmp_path / "a.wav").write_bytes(content)
    np.testing.assert_array_equal(read(tmp_path / "a.wav", channel=0), samples[:, 0] / 32_768)
    assert duration_seconds(tmp_path / "a.wav") == 3_000 / 16_000
