"""Recognising sound files by their first bytes."""

import numpy as np
import pytest

from sat_jax.audio.containers import find_container
from tests.support.sounds import FORMATS, noise, write


def found(content):
    return find_container(lambda size: content[:size])


@pytest.mark.parametrize(("ending", "file_format", "subtype"), FORMATS)
def test_what_libsndfile_writes(tmp_path, ending, file_format, subtype):
    names = {"mp3": "MP3", "opus": "Ogg", "ogg": "Ogg"}
    path = write(tmp_path / "a", noise(20_000), 16_000, file_format, subtype)
    assert found(path.read_bytes()) == names.get(ending, ending.upper())


def mpeg_frame(rate_code, bit_rate_code, size, *, layer=1, version=3):
    head = bytes([0xFF, 0xE0 | version << 3 | layer << 1 | 1, bit_rate_code << 4 | rate_code << 2])
    return head.ljust(size, b"\0")


def adts_frame(size):
    return bytes([0xFF, 0xF1, 0x50, 0x80 | size >> 11, size >> 3 & 255, (size & 7) << 5, 0]).ljust(
        size, b"\0"
    )


def ac3_frame(size, rate, code, version=8):
    head = bytes([0x0B, 0x77, size // 2 - 1 >> 8, size // 2 - 1 & 255, rate << 6 | code])
    return (head + bytes([version << 3])).ljust(size, b"\0")


# Lengths from the standards: 144 or 72 times the bit rate, divided by the sample rate.
FRAMES = {
    "MPEG 1, 128 kbit/s, 44.1 kHz": (mpeg_frame(0, 9, 417), "MP3"),
    "MPEG 1, 320 kbit/s, 32 kHz": (mpeg_frame(2, 14, 1_440), "MP3"),
    "MPEG 2, 64 kbit/s, 16 kHz": (mpeg_frame(2, 8, 288, version=2), "MP3"),
    "MPEG 2.5, 8 kbit/s, 8 kHz": (mpeg_frame(2, 1, 72, version=0), "MP3"),
    "layer II, 384 kbit/s, 48 kHz": (mpeg_frame(1, 14, 1_152, layer=2), "MP3"),
    "AAC": (adts_frame(371), "AAC"),
    "AC-3, 192 kbit/s, 48 kHz": (ac3_frame(768, 0, 20), "AC-3"),
    "AC-3, 192 kbit/s, 44.1 kHz": (ac3_frame(836, 1, 21), "AC-3"),
    "AC-3, 640 kbit/s, 32 kHz": (ac3_frame(3_840, 2, 36), "AC-3"),
    "E-AC-3": (ac3_frame(834, 1, 50, version=16), "AC-3"),
    "transport stream": (b"\x47\x40\x00\x10".ljust(188, b"\xff"), "MPEG-TS"),
}


@pytest.mark.parametrize("name", FRAMES)
def test_frames_must_follow_each_other(name):
    frame, container = FRAMES[name]
    assert found(frame * 5) == found(frame * 3) == container
    assert found(frame * 4 + b"anything") == container
    assert found(frame) is None
    assert found(frame + noise(4_000).tobytes()) is None
    assert found(frame * 2 + noise(4_000).tobytes()) is None
    assert found(frame[:-1] * 5) is None


@pytest.mark.parametrize(
    ("content", "container"),
    [
        (b"RIFF\0\0\0\0WAVEfmt ", "WAV"),
        (b"RF64\xff\xff\xff\xffWAVEds64", "WAV"),
        (b"RIFF\0\0\0\0AVI LIST", "AVI"),
        (b"RIFF\0\0\0\0webp", None),
        (b"\0\0\0\x18ftypM4A \0\0\0\0", "MP4"),
        (b"\x1a\x45\xdf\xa3\xa3\x42\x86\x81", "Matroska"),
        (b"ID3\x04\0\0\0\0\x02\x01", "MP3"),
        (b"ID3\x04\0\0\0\0\x82\x01", None),
        (b"caff\0\x01\0\0", "CAF"),
        (b".RMF\0\0\0\x12\0\0", "RealMedia"),
        (b".SoX\x1c\0\0\0", "SoX"),
        (bytes.fromhex("e04bffd8f8726fba80008001b752"), "TrueHD"),
        (bytes.fromhex("e04bffd8f8726fbb0f8f0001b752"), "TrueHD"),
        (bytes.fromhex("80000020031204020000ac44"), "ADX"),
        (bytes.fromhex("8000002000000000"), None),
        (b"", None),
        (b"R", None),
    ],
)
def test_signatures(content, container):
    assert found(content) == container


def test_samples_are_no_file():
    generator = np.random.default_rng(0)
    for start in (
        b"\xff\xfb",
        b"\xff\xf1",
        b"\x47\x40",
        b"\x0b\x77",
        b"\x80\0",
        b"RIFF",
        b"\0\0\0\x18",
    ):
        for _ in range(300):
            assert found(start + generator.bytes(6_000)) is None
    for value in range(-32_768, 32_768):
        assert found(np.full(12, value, "<i2").tobytes()) is None
    for value in (-1, 0, 0x4747, 0x770B, -1025, -1281):
        assert found(np.full(9_000, value, "<i2").tobytes()) is None


def test_samples_are_recognised_by_a_few_bytes():
    asked = []
    samples = np.random.default_rng(0).integers(-9_000, 9_000, 10_000).astype("<i2").tobytes()

    def peek(size):
        asked.append(size)
        return samples[:size]

    assert find_container(peek) is None and max(asked) <= 32
