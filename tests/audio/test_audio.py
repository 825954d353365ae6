"""Audio reading, against one-shot libsndfile and soxr, and every kind of bad input."""

import functools
import io
import itertools
import os
import re
import shutil
import struct
import subprocess
import sys
import threading
import time
import tracemalloc

import numpy as np
import pytest
import soundfile
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st

from sat_jax.audio import duration_seconds, read_blocks, read_pcm_blocks
from sat_jax.errors import SatError

REAL_FFMPEG = shutil.which("ffmpeg")
RATES = (7_350, 8_000, 11_025, 12_345, 16_000, 22_050, 44_100, 48_000, 96_000)
FORMATS = (
    ("wav", "WAV", "PCM_16"),
    ("wav", "WAV", "PCM_24"),
    ("wav", "WAV", "PCM_U8"),
    ("wav", "WAV", "FLOAT"),
    ("wav", "WAVEX", "PCM_32"),
    ("wav", "RF64", "PCM_16"),
    ("aiff", "AIFF", "PCM_16"),
    ("au", "AU", "FLOAT"),
    ("flac", "FLAC", "PCM_16"),
    ("ogg", "OGG", "VORBIS"),
    ("opus", "OGG", "OPUS"),
    ("mp3", "MP3", "MPEG_LAYER_III"),
)
ODD_CHUNK = b"note" + struct.pack("<I", 3) + b"odd\0" + b"data"
SETTINGS = settings(max_examples=40, deadline=None, derandomize=True)


@pytest.fixture(autouse=True, scope="module")
def _no_ffmpeg(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(tmp_path_factory.mktemp("no_programs")))
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("audio")


def read(path, **options):
    return np.concatenate(list(read_blocks(path, **options)))


def noise(frames, channels=1, seed=0):
    """Quiet noise, so that no lossy format has to clip it."""
    generator = np.random.default_rng(seed)
    return (generator.standard_normal((frames, channels)) * 0.05).astype(np.float32)


def write(path, samples, rate=16_000, file_format="WAV", subtype="FLOAT"):
    if not soundfile.check_format(file_format, subtype):
        pytest.skip(f"libsndfile cannot write {file_format} {subtype}")
    soundfile.write(path, samples, rate, format=file_format, subtype=subtype)
    return path


def expected(samples, rate):
    mono = (samples.sum(axis=1, dtype=np.float64) / samples.shape[1]).astype(np.float32)
    return soxr.resample(mono, rate, 16_000, quality="HQ") if rate != 16_000 else mono


def error_of(path, **options):
    """Returns the message of the error that reading a file ends in."""
    with pytest.raises(SatError) as caught:
        list(read_blocks(path, **options))
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message


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
        assert f"channel {channel}:" in error_of(path, channel=channel)


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


class Cut(io.RawIOBase):
    """A pipe whose reads end where they end."""

    def __init__(self, data, lengths):
        self.pieces = iter(np.split(np.frombuffer(data, np.uint8), np.cumsum(lengths)))

    def read(self, size=-1):
        return next((piece.tobytes() for piece in self.pieces if piece.size), b"")


@SETTINGS
@given(
    lengths=st.lists(st.integers(0, 3_000), max_size=30),
    channels=st.integers(1, 4),
    rate=st.sampled_from(RATES),
    channel=st.none() | st.just(0),
)
def test_pipe_equals_file_however_it_is_cut(folder, lengths, channels, rate, channel):
    samples = np.random.default_rng(1).integers(-30_000, 30_000, (5_000, channels), np.int16)
    soundfile.write(folder / "pipe.wav", samples, rate, subtype="PCM_16")
    stream = Cut(samples.astype("<i2").tobytes() + b"\0", lengths)
    blocks = list(read_pcm_blocks(stream, rate=rate, channels=channels, channel=channel))
    assert all(block.dtype == np.float32 and block.size for block in blocks)
    want = read(folder / "pipe.wav", channel=channel)
    np.testing.assert_array_equal(np.concatenate(blocks), want)


def test_pipe_hands_on_what_is_there():
    reader, writer = os.pipe()
    with open(reader, "rb") as stream, open(writer, "wb", buffering=0) as sink:
        blocks = read_pcm_blocks(stream, rate=16_000, channels=2)
        alarm = threading.Timer(10, sink.close)  # else a reader that waits would wait for ever
        alarm.start()
        for value in (1, 2, 3):
            sink.write(np.full((100, 2), value, "<i2").tobytes())
            np.testing.assert_array_equal(next(blocks), np.full(100, value / 32_768))
        alarm.cancel()
        sink.close()
        assert list(blocks) == []


@pytest.mark.parametrize(
    ("options", "value"),
    [
        ({"rate": 0, "channels": 1}, "rate 0 Hz"),
        ({"rate": 10**6, "channels": 1}, "rate 1000000 Hz"),
        ({"rate": 16_000, "channels": 0}, "0 channels"),
        ({"rate": 16_000, "channels": 2, "channel": 2}, "channel 2"),
        ({"rate": 16_000, "channels": 2}, ""),
    ],
)
def test_bad_pipe(options, value):
    with pytest.raises(SatError, match=f"^standard input: .*{value}"):
        list(read_pcm_blocks(io.BytesIO(b"\0"), **options))


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
    assert "5.00 of 5.00 s" in error_of(path)


def test_a_truncated_mp3_header(tmp_path):
    path = write(tmp_path / "a.mp3", noise(16_000), 16_000, "MP3", "MPEG_LAYER_III")
    path.write_bytes(path.read_bytes()[:30])
    assert "MP3" in error_of(path)


def ogg_pages(content):
    """Returns where the pages of a whole Ogg file begin."""
    starts = [0]
    while starts[-1] < len(content):
        table = content[starts[-1] + 27 :][: content[starts[-1] + 26]]
        starts.append(starts[-1] + 27 + len(table) + sum(table))
    return starts[:-1]


OGG_DAMAGE = {
    "one bit": lambda d, a, b: d[: a + 99] + bytes([d[a + 99] ^ 16]) + d[a + 100 :],
    "zeros": lambda d, a, b: d[: a + 9] + bytes(len(d) // 4) + d[a + 9 + len(d) // 4 :],
    "zeros to the end": lambda d, a, b: d[:a] + bytes(len(d) - a),
    "a page is lost": lambda d, a, b: d[:a] + d[b:],
    "bytes are lost": lambda d, a, b: d[: a + 9] + d[a + 9 + len(d) // 4 :],
    "bytes are added": lambda d, a, b: d[:a] + b"?" + d[a:],
    "another stream begins": lambda d, a, b: d[:a] + d,
}


@pytest.fixture(scope="module")
def ogg_file(folder):
    """Returns the bytes and the samples of an Ogg file of ten seconds."""

    @functools.cache
    def make(subtype):
        path = write(folder / f"{subtype}.ogg", noise(160_000), 16_000, "OGG", subtype)
        return path.read_bytes(), read(path)

    return make


@pytest.mark.parametrize("how", OGG_DAMAGE)
@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
@pytest.mark.parametrize("block_seconds", [0.1, 4.0])
def test_a_damaged_ogg_file_is_read_up_to_the_damage(
    ogg_file, tmp_path, subtype, how, block_seconds
):
    content, whole = ogg_file(subtype)
    pages = ogg_pages(content)
    start, end = pages[len(pages) // 2 :][:2]
    damaged = tmp_path / "a.ogg"
    damaged.write_bytes(OGG_DAMAGE[how](content, start, end))
    blocks = []
    with pytest.raises(SatError, match=re.escape(f"{damaged}: ")):
        for block in read_blocks(damaged, block_seconds=block_seconds):
            blocks.append(block)
    samples = np.concatenate(blocks)
    assert 40_000 < len(samples) < 120_000
    np.testing.assert_array_equal(samples, whole[: len(samples)])


def test_only_the_first_of_several_ogg_streams_is_read(tmp_path):
    path = write(tmp_path / "a.ogg", noise(40_000), 16_000, "OGG", "VORBIS")
    whole = read(path)
    path.write_bytes(path.read_bytes() * 2)
    blocks = []
    with pytest.raises(SatError, match=str(path.stat().st_size // 2)):
        for block in read_blocks(path):
            blocks.append(block)
    np.testing.assert_array_equal(np.concatenate(blocks), whole)


def test_ogg_files_with_tags_or_joined_late_are_whole(tmp_path):
    path = write(tmp_path / "a.ogg", noise(160_000), 16_000, "OGG", "VORBIS")
    content, whole = path.read_bytes(), read(path)
    path.write_bytes(content + b"TAG" + bytes(125))
    np.testing.assert_array_equal(read(path), whole)
    # A live stream that was joined later: its headers, and pages from the middle on.
    pages = ogg_pages(content)
    sound = next(start for start in pages if any(content[start + 6 : start + 14]))
    path.write_bytes(content[:sound] + content[pages[len(pages) // 2] :])
    assert 40_000 < len(read(path)) < 120_000


def test_ogg_files_without_a_last_page_are_whole(tmp_path):
    path = write(tmp_path / "a.ogg", noise(80_000), 16_000, "OGG", "VORBIS")
    content = path.read_bytes()
    path.write_bytes(content[: content.rindex(b"OggS")])
    assert 0 < len(read(path)) < 80_000


@pytest.mark.parametrize("size", [0, 0xFFFF_FFFF, 0x7FFF_F000, 0x8000_0000])
@pytest.mark.parametrize("channels", [1, 3])
def test_wav_header_of_unknown_length(tmp_path, size, channels):
    samples = np.random.default_rng(0).integers(-9, 9, (3_000, channels), np.int16)
    content = wav_bytes(samples.tobytes(), channels=channels, data_size=size, riff_size=size)
    (tmp_path / "a.wav").write_bytes(content)
    np.testing.assert_array_equal(read(tmp_path / "a.wav", channel=0), samples[:, 0] / 32_768)
    assert duration_seconds(tmp_path / "a.wav") == 3_000 / 16_000


def fake_ffmpeg(folder, monkeypatch, script):
    """Puts a program named ffmpeg on the path; $input is the file it is asked to read."""
    program = folder / "bin" / "ffmpeg"
    program.parent.mkdir()
    search = 'for word; do case "$word" in file:*) input="${word#file:}";; esac; done'
    program.write_text(f"#!/bin/sh\nPATH=/usr/bin:/bin\n{search}\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent))


def unreadable(folder):
    """A file libsndfile does not know, beside the AU stream that ffmpeg would make of it."""
    samples = noise(30_000, 2)
    write(folder / "a.m4a.au", samples, 48_000, "AU", "FLOAT")
    (folder / "a.m4a").write_bytes(b"....ftypM4A " * 10)
    return folder / "a.m4a", samples


def test_ffmpeg_decodes_the_rest(tmp_path, monkeypatch):
    path, samples = unreadable(tmp_path)
    fake_ffmpeg(tmp_path, monkeypatch, 'cat "$input.au"')
    np.testing.assert_allclose(read(path), expected(samples, 48_000), atol=1e-6)
    want = expected(samples[:, 1:], 48_000)
    np.testing.assert_allclose(read(path, channel=1), want, atol=1e-6)
    assert "channel 2" in error_of(path, channel=2)
    assert duration_seconds(path) is None


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo '[in#0 @ 0x5] [mov] moov atom not found' >&2; exit 183", "(moov atom not found)"),
        ("exit 1", "ffmpeg"),
        ('cat "$input.au"; echo "[aac @ 0x1] bad\nmore." >&2; exit 1', "(bad)"),
        ('cat "$input.au"; echo "File ended prematurely" >&2', "(File ended prematurely)"),
    ],
)
def test_ffmpeg_fails(tmp_path, monkeypatch, script, reason):
    path, _ = unreadable(tmp_path)
    fake_ffmpeg(tmp_path, monkeypatch, script)
    assert reason in error_of(path)


def test_stopping_early_stops_ffmpeg(tmp_path, monkeypatch):
    path, _ = unreadable(tmp_path)
    fake_ffmpeg(tmp_path, monkeypatch, f'echo $$ > {tmp_path}/pid; cat "$input.au"; exec sleep 30')
    start = time.monotonic()
    blocks = read_blocks(path, block_seconds=0.1)
    next(blocks)
    pid = int((tmp_path / "pid").read_text())
    os.kill(pid, 0)
    blocks.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert time.monotonic() - start < 20


@pytest.mark.skipif(REAL_FFMPEG is None, reason="ffmpeg is not installed")
@pytest.mark.parametrize("name", ["a.m4a", "-a: 100%.mka"])
def test_installed_ffmpeg(tmp_path, monkeypatch, name):
    monkeypatch.setenv("PATH", os.path.dirname(REAL_FFMPEG))
    monkeypatch.chdir(tmp_path)
    seconds = np.arange(88_200) / 44_100
    tones = np.stack([np.sin(2 * np.pi * pitch * seconds) / 4 for pitch in (440, 880)], axis=1)
    write(tmp_path / "a.wav", tones.astype(np.float32), 44_100)
    encode = [REAL_FFMPEG, "-v", "error", "-i", "a.wav", "-c:a", "aac", f"file:{name}"]
    subprocess.run(encode, check=True, stdin=subprocess.DEVNULL)
    for channel, pitch in itertools.product(range(2), (440, 880)):
        result = read(name, channel=channel)[4_000:20_000]
        strength = abs(np.fft.rfft(result)[pitch]) / len(result) * 2
        assert strength == pytest.approx(0.25 if pitch == 440 * (channel + 1) else 0, abs=0.02)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: len(content) // 2])
    assert "ffmpeg" in error_of(name)
