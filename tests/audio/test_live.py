"""Sound that comes through pipes, against the same sound in a file."""

import contextlib
import io
import os
import shutil
import subprocess
import threading
import tracemalloc

import numpy as np
import pytest
import soundfile

from sat_jax.audio import read_blocks, read_live_blocks
from sat_jax.audio.sound_warnings import SoundWarning
from sat_jax.errors import SatError
from tests.audio.test_files import wav_bytes
from tests.audio.test_pcm import Cut
from tests.support.sounds import FORMATS, noise, read, write

REAL_FFMPEG = shutil.which("ffmpeg")
NAME = "standard input"


def read_live(stream, **options):
    return np.concatenate(list(read_live_blocks(stream, name=NAME, **options)))


def live_error(content, **options):
    """Returns the samples before the error, and its message."""
    blocks = []
    with pytest.raises(SatError, match=f"^{NAME}: ") as caught:
        blocks.extend(read_live_blocks(io.BytesIO(content), name=NAME, **options))
    assert "\n" not in str(caught.value)
    return np.concatenate([np.zeros(0), *blocks]), str(caught.value)


@pytest.fixture
def ffmpeg(monkeypatch):
    if REAL_FFMPEG is None:
        pytest.skip("ffmpeg is not installed")
    monkeypatch.setenv("PATH", os.path.dirname(REAL_FFMPEG))

    def encode(folder, name, *flags):
        write(folder / "source.wav", noise(48_000, 2), 16_000)
        command = [REAL_FFMPEG, "-v", "error", "-nostdin", "-i", folder / "source.wav", *flags]
        subprocess.run([*command, folder / name], check=True)
        return folder / name

    return encode


@contextlib.contextmanager
def open_pipe():
    """A pipe whose reader fails, instead of waiting for ever, if it waits for too much."""
    reader, writer = os.pipe()
    with open(reader, "rb") as stream, open(writer, "wb", buffering=0) as sink:
        alarm = threading.Timer(30, sink.close)
        alarm.start()
        yield stream, sink
        alarm.cancel()


@pytest.mark.parametrize("cuts", ["at once", "in pieces"])
@pytest.mark.parametrize(("ending", "file_format", "subtype"), FORMATS)
def test_a_file_in_a_pipe_reads_like_the_file(tmp_path, ending, file_format, subtype, cuts):
    path = write(tmp_path / f"a.{ending}", noise(40_007, 2), 16_000, file_format, subtype)
    content = path.read_bytes()
    lengths = [7, 1, 3, 0, 9, 4_000, 1, 2_000, 60_001] if cuts == "in pieces" else []
    np.testing.assert_array_equal(read_live(Cut(content, lengths)), read(path))
    np.testing.assert_array_equal(read_live(io.BytesIO(content), channel=1), read(path, channel=1))


@pytest.mark.parametrize(
    ("file_format", "subtype"),
    [("WAV", "IMA_ADPCM"), ("W64", "PCM_24"), ("CAF", "PCM_16"), ("CAF", "ALAC_16")],
)
def test_less_common_files(tmp_path, file_format, subtype):
    path = write(tmp_path / "a", noise(40_007), 16_000, file_format, subtype)
    np.testing.assert_array_equal(read_live(io.BytesIO(path.read_bytes())), read(path))


def test_mp3_behind_a_tag_with_a_picture(tmp_path):
    mp3 = write(tmp_path / "a", noise(40_000), 16_000, "MP3", "MPEG_LAYER_III").read_bytes()
    tag = b"ID3\x03\0\0" + bytes([0, 12, 0, 0]) + bytes(12 << 14)
    np.testing.assert_array_equal(read_live(io.BytesIO(tag + mp3)), read(tmp_path / "a"))


def test_a_wav_file_with_a_long_text_before_its_samples():
    pcm = np.random.default_rng(0).integers(-99, 99, 3_000, np.int16).tobytes()
    plain = wav_bytes(pcm)
    text = b"LIST" + (1 << 20).to_bytes(4, "little") + bytes(1 << 20)
    have = read_live(io.BytesIO(plain[:36] + text + plain[36:] + b"LIST\4\0\0\0abcd"))
    np.testing.assert_array_equal(have, np.frombuffer(pcm, "<i2") / 32_768)


@pytest.mark.parametrize("size", [0, 0xFFFF_FFFF, 0x7FFF_F000, 0x8000_0000])
@pytest.mark.parametrize("channels", [1, 3])
def test_wav_of_unknown_length(size, channels):
    samples = np.random.default_rng(0).integers(-9, 9, (3_000, channels), np.int16)
    content = wav_bytes(samples.tobytes(), channels=channels, data_size=size, riff_size=size)
    have = read_live(io.BytesIO(content + b"\0"), channel=0)
    np.testing.assert_array_equal(have, samples[:, 0] / 32_768)


@pytest.mark.parametrize("size", ["44 too large", "36 too large", "stale"])
def test_wav_of_a_wrong_length(size):
    samples = np.random.default_rng(0).integers(-900, 900, 30_000, np.int16)
    data_size = {"44 too large": 60_044, "36 too large": 60_036, "stale": 20_002}[size]
    content = wav_bytes(samples.tobytes(), data_size=data_size)
    np.testing.assert_array_equal(read_live(io.BytesIO(content)), samples / 32_768)


@pytest.mark.parametrize("between", [b"", b"TAG" + bytes(125)], ids=["directly", "behind a tag"])
@pytest.mark.parametrize(
    ("file_format", "subtype"),
    [("WAV", "PCM_16"), ("AIFF", "PCM_16"), ("FLAC", "PCM_16"), ("MP3", "MPEG_LAYER_III")],
)
def test_joined_files_are_read_one_after_another(tmp_path, file_format, subtype, between):
    path = write(tmp_path / "a", noise(30_001), 16_000, file_format, subtype)
    content = path.read_bytes()
    have = read_live(Cut(content + between + content, [9, 7_000, 3]))
    np.testing.assert_array_equal(have, np.tile(read(path), 2))


@pytest.mark.parametrize("second", ["FLAC", "MP3", "AIFF"])
def test_a_short_flac_file_has_an_end(tmp_path, second):
    path = write(tmp_path / "a", noise(3_000), 16_000, "FLAC", "PCM_16")
    np.testing.assert_array_equal(read_live(io.BytesIO(path.read_bytes())), read(path))
    subtype = "MPEG_LAYER_III" if second == "MP3" else "PCM_16"
    other = write(tmp_path / "b", noise(3_000), 16_000, second, subtype)
    have = read_live(io.BytesIO(path.read_bytes() + other.read_bytes()))
    np.testing.assert_array_equal(have, np.concatenate([read(path), read(other)]))


def live_parts(name):
    """Returns a live file of a second in two halves."""
    samples = np.random.default_rng(0).integers(-9_000, 9_000, 16_000).astype("<i2")
    if name == "PCM":
        content = samples.tobytes()
    elif name == "WAV":
        content = wav_bytes(samples.tobytes(), data_size=2**32 - 1)
    else:
        file = io.BytesIO()
        soundfile.write(file, samples, 16_000, format=name)
        content = file.getvalue()
    half = len(content) // 2
    return samples / 32_768, content[:half], content[half:]


@pytest.mark.parametrize("name", ["PCM", "WAV", "AU", "FLAC"])
def test_samples_are_handed_on_as_they_come(name):
    samples, first, second = live_parts(name)
    with open_pipe() as (stream, sink):
        blocks = read_live_blocks(stream, name=NAME)
        sink.write(first)
        have = np.zeros(0)
        frame = 4_096 if name == "FLAC" else 0
        while len(have) < 8_000 - frame - 320:  # What is missing to a FLAC frame, and to a block.
            have = np.append(have, next(blocks))
        sink.write(second)
        sink.close()
        have = np.concatenate([have, *blocks])
    np.testing.assert_array_equal(have, samples)


@pytest.mark.parametrize("name", ["WAV", "W64", "AIFF", "AU"])
def test_all_samples_come_before_the_pipe_ends(name):
    samples = np.random.default_rng(0).integers(-9_000, 9_000, 28_001)
    file = io.BytesIO()
    soundfile.write(file, samples.astype("<i2"), 16_000, format=name)
    with open_pipe() as (stream, sink):
        blocks = read_live_blocks(stream, name=NAME)
        sink.write(file.getvalue())
        have = np.concatenate([next(blocks) for _ in range(88)])
        assert not sink.closed
        blocks.close()
    np.testing.assert_array_equal(have, samples / 32_768)


def test_memory_does_not_grow_with_length():
    class Endless(io.RawIOBase):
        left = 400

        def read(self, size=-1):
            self.left -= 1
            return b"\1" * 65_536 if self.left > 0 else b""

    heads = [wav_bytes(b"", data_size=size) for size in (2**32 - 1, 0, 999_998)]
    for start in (b"", *heads):
        stream = Endless()
        parts = iter([start] if start else [])
        first = stream.read
        stream.read = lambda size, parts=parts, first=first: next(parts, None) or first(size)
        tracemalloc.start()
        count = sum(len(block) for block in read_live_blocks(stream, name=NAME))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert count == 399 * 32_768
        assert peak < 10e6  # The samples take 52 MB.


@pytest.mark.parametrize(
    ("file_format", "subtype"),
    [
        ("WAV", "PCM_16"),
        ("RF64", "FLOAT"),
        ("W64", "PCM_24"),
        ("AIFF", "PCM_16"),
        ("NIST", "PCM_16"),
        ("FLAC", "PCM_16"),
        ("MP3", "MPEG_LAYER_III"),
    ],
)
def test_a_truncated_file_is_told(tmp_path, file_format, subtype):
    path = write(tmp_path / "a", noise(80_000), 16_000, file_format, subtype)
    content = path.read_bytes()
    samples, _ = live_error(content[: len(content) * 3 // 5 + 1])
    assert 30_000 < len(samples) < 50_000
    np.testing.assert_array_equal(samples, read(path)[: len(samples)])


def test_a_damaged_flac_file_is_told(tmp_path):
    path = write(tmp_path / "a", noise(80_000), 16_000, "FLAC", "PCM_16")
    content = bytearray(path.read_bytes())
    content[len(content) // 2 :][:2_000] = bytes(2_000)
    content[len(content) // 2 : len(content) // 2 + 2_000] = bytes(2_000)
    samples, _ = live_error(bytes(content))
    np.testing.assert_array_equal(samples, read(path)[: len(samples)])


@pytest.mark.parametrize("content", [b"", b"\0", b"RIFF", wav_bytes(b"")[:30], wav_bytes(b"")])
def test_no_sound(content):
    if content == b"RIFF":
        assert len(read_live(io.BytesIO(content))) == 2
    else:
        live_error(content)


def test_flags_for_pcm_do_not_change_a_file():
    samples = np.arange(-900, 900, dtype="<i2")
    content = wav_bytes(samples.tobytes())
    for shape in ({"rate": 48_000}, {"channels": 2}):
        (value,) = shape.values()
        with pytest.warns(SoundWarning, match=f"WAV.* {value} is ignored"):
            have = read_live(io.BytesIO(content), **shape)
        np.testing.assert_array_equal(have, samples / 32_768)
    read_live(io.BytesIO(content), rate=16_000, channels=1)
    have = read_live(io.BytesIO(samples.tobytes()), rate=8_000, channels=2)
    assert len(have) == 1_800


def test_ctrl_c_in_a_read_is_not_lost(capfd):
    class Stopped(io.BytesIO):
        def read(self, size=-1):
            data = super().read(min(size, 5_000))
            if not data:
                raise KeyboardInterrupt
            return data

    blocks = []
    with pytest.raises(KeyboardInterrupt):
        content = wav_bytes(bytes(20_000), data_size=2**32 - 1)
        blocks.extend(read_live_blocks(Stopped(content), name=NAME))
    assert 9_000 < sum(map(len, blocks)) <= 10_000
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["WAV", "W64", "MP3", "FLAC"])
def test_nothing_is_read_after_ctrl_c(tmp_path, name):
    class Stopped(io.RawIOBase):
        reads = 0

        def read(self, size=-1):
            self.reads += 1
            if self.reads > 1:
                raise KeyboardInterrupt
            return content

    path = write(tmp_path / "a", noise(8_000), 16_000, name, None)
    for size in (200, 2_000, 4_000):
        content = path.read_bytes()[:size]
        stream = Stopped()
        with pytest.raises(KeyboardInterrupt):
            list(read_live_blocks(stream, name=NAME))
        assert stream.reads == 2


def test_a_named_pipe_takes_any_file(tmp_path):
    path = write(tmp_path / "a.flac", noise(20_000), 16_000, "FLAC", "PCM_16")
    os.mkfifo(tmp_path / "pipe")

    def send(content):
        writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=(content,))
        writer.start()
        return writer

    writer = send(path.read_bytes())
    np.testing.assert_array_equal(read(tmp_path / "pipe"), read(path))
    writer.join()
    writer = send(bytes(1_000))
    with pytest.raises(SatError, match="pipe: begins like no sound file"):
        read(tmp_path / "pipe")
    writer.join()


# ffmpeg


@pytest.mark.parametrize("name", ["a.m4a", "a.mka", "a.ts", "a.aac"])
def test_without_ffmpeg_its_formats_are_refused_at_once(name):
    begin = {
        "a.m4a": b"\0\0\0\x18ftypM4A " + bytes(100),
        "a.mka": b"\x1a\x45\xdf\xa3" + bytes(100),
        "a.ts": (b"\x47\x40\x00\x10" + bytes(184)) * 5,
        "a.aac": bytes([0xFF, 0xF1, 0x50, 0x80, 25, 0x60] + [0] * 197) * 5,
    }
    with open_pipe() as (stream, sink):
        sink.write(begin[name])
        with pytest.raises(SatError, match=f"^{NAME}: .*install ffmpeg"):
            next(read_live_blocks(stream, name=NAME))


@pytest.mark.parametrize(
    ("name", "flags"),
    [
        ("a.m4a", []),
        ("a.m4a", ["-movflags", "faststart"]),
        ("a.mp4", ["-movflags", "frag_keyframe+empty_moov"]),
        ("a.mka", ["-c:a", "aac"]),
        ("a.ts", ["-c:a", "aac"]),
        ("a.aac", []),
        ("a.ogg", ["-c:a", "flac"]),
    ],
)
def test_ffmpeg_reads_a_pipe_like_the_file(ffmpeg, tmp_path, name, flags):
    path = ffmpeg(tmp_path, name, *flags)
    content = path.read_bytes()
    np.testing.assert_array_equal(read_live(Cut(content, [3, 5_000, 1])), read(path))
    if "index" not in flags and name != "a.aac":
        live_error(content[: len(content) // 2])


@pytest.mark.parametrize("flags", [["-f", "wav"], ["-f", "ogg"], ["-f", "matroska"]])
def test_ffmpeg_hands_on_samples_as_they_come(ffmpeg, tmp_path, flags):
    content = ffmpeg(tmp_path, "a", *flags).read_bytes()
    with open_pipe() as (stream, sink):
        blocks = read_live_blocks(stream, name=NAME)
        sink.write(content[: min(60_000, len(content) * 3 // 4)])  # Less than a pipe holds.
        assert sum(len(next(blocks)) for _ in range(10)) > 1_000
        blocks.close()


def test_ogg_with_and_without_ffmpeg(ffmpeg, tmp_path, monkeypatch):
    path = write(tmp_path / "a.ogg", noise(40_000), 16_000, "OGG", "VORBIS")
    np.testing.assert_allclose(read_live(io.BytesIO(path.read_bytes())), read(path), atol=1e-6)
    monkeypatch.setenv("PATH", str(tmp_path))
    np.testing.assert_array_equal(read_live(io.BytesIO(path.read_bytes())), read(path))
    content = path.read_bytes()
    live_error(content[: len(content) // 2])


def test_a_chain_of_ogg_streams_is_whole(ffmpeg, tmp_path):
    """Web radio begins a stream with each piece of music."""
    path = write(tmp_path / "a.ogg", noise(40_000), 16_000, "OGG", "VORBIS")
    have = read_live(io.BytesIO(2 * path.read_bytes()))
    np.testing.assert_allclose(have[:40_000], read(path), atol=1e-6)
    np.testing.assert_allclose(have[-39_000:], read(path)[1_000:], atol=1e-6)


# What decoders print


def test_a_decoder_prints_nothing(tmp_path, capfd):
    path = write(tmp_path / "a.mp3", noise(80_000), 16_000, "MP3", "MPEG_LAYER_III")
    content = path.read_bytes()
    half = len(content) // 2
    damaged = content[:half] + b"\0" * 100 + content[half + 50 : -200]
    path.write_bytes(damaged)
    with contextlib.suppress(SatError):
        list(read_blocks(path))
    with contextlib.suppress(SatError):
        list(read_live_blocks(io.BytesIO(damaged), name=NAME))
    assert capfd.readouterr() == ("", "")
