"""Sizes, tags and cuts of files that come through pipes, against the same files by name."""

import io
import struct

import numpy as np
import pytest
import soundfile

from sat_jax.audio.films import FilmEnd
from tests.audio.test_files import wav_bytes
from tests.audio.test_live import live_error, read_live
from tests.support.sounds import noise, read, write

ID3 = b"ID3\x03\0\0\0\0\0\x0a" + bytes(10)
SAMPLES = np.random.default_rng(0).integers(-9_000, 9_000, 20_000).astype("<i2")
WANT = SAMPLES / 32_768


def sized(name, size):
    """Returns a file of `SAMPLES` whose header gives another size, in bytes."""
    file = io.BytesIO()
    soundfile.write(file, SAMPLES, 16_000, format=name)
    content = bytearray(file.getvalue())
    if name == "AU":
        struct.pack_into(">I", content, 8, size)
    elif name == "AIFF":
        struct.pack_into(">I", content, content.index(b"SSND") + 4, min(size + 8, 2**32 - 1))
    elif name == "RF64":
        struct.pack_into("<q", content, content.index(b"ds64") + 16, size)
    else:
        struct.pack_into("<I", content, content.index(b"data") + 4, size)
    return bytes(content)


@pytest.mark.parametrize("name", ["WAV", "AIFF"])
def test_a_chunk_behind_the_samples_is_no_sound(name):
    chunk = b"ID3 " + struct.pack("<I" if name == "WAV" else ">I", len(ID3)) + ID3
    content = sized(name, 2 * len(SAMPLES)) + chunk
    np.testing.assert_array_equal(read_live(io.BytesIO(content)), WANT)
    np.testing.assert_array_equal(read_live(io.BytesIO(2 * content)), np.tile(WANT, 2))


@pytest.mark.parametrize("name", ["WAV", "AU", "FLAC"])
def test_a_tag_behind_the_sound_is_no_sound(name):
    file = io.BytesIO()
    soundfile.write(file, SAMPLES, 16_000, format=name)
    content = file.getvalue() + ID3
    np.testing.assert_array_equal(read_live(io.BytesIO(content)), WANT)
    np.testing.assert_array_equal(read_live(io.BytesIO(2 * content)), np.tile(WANT, 2))


@pytest.mark.parametrize("subtype", ["MPEG_LAYER_III", "IMA_ADPCM", "ULAW"])
def test_a_tag_behind_compressed_samples(tmp_path, subtype):
    if subtype == "MPEG_LAYER_III":  # libsndfile reads it, but does not write it.
        mp3 = write(tmp_path / "a.mp3", noise(20_000), 16_000, "MP3", subtype).read_bytes()
        head = struct.pack("<HHIIHHHHIHHH", 0x55, 1, 16_000, 8_000, 1, 0, 12, 1, 0, 288, 1, 0)
        content = b"WAVEfmt " + struct.pack("<I", 30) + head + b"data" + struct.pack("<I", len(mp3))
        content = b"RIFF" + struct.pack("<I", len(content + mp3)) + content + mp3
        (tmp_path / "a.wav").write_bytes(content)
    else:
        content = write(tmp_path / "a.wav", noise(20_000), 16_000, "WAV", subtype).read_bytes()
    have = read_live(io.BytesIO(content + b"TAG" + bytes(125)))
    np.testing.assert_array_equal(have, read(tmp_path / "a.wav"))


@pytest.mark.parametrize("size", [0, 10_001, 2**32 - 1])
@pytest.mark.parametrize("name", ["WAV", "AU", "AIFF"])
def test_samples_behind_the_size_of_a_header(name, size):
    np.testing.assert_array_equal(read_live(io.BytesIO(sized(name, size))), WANT)


@pytest.mark.parametrize("size", [0, -1])
def test_rf64_of_unknown_length(size):
    np.testing.assert_array_equal(read_live(io.BytesIO(sized("RF64", size))), WANT)


@pytest.mark.parametrize("zeros", [10, 30_000])
def test_silence_before_more_samples(zeros):
    samples = np.concatenate([SAMPLES, np.zeros(zeros, "<i2"), SAMPLES])
    content = wav_bytes(samples.tobytes(), data_size=2 * len(SAMPLES))
    np.testing.assert_array_equal(read_live(io.BytesIO(content)), samples / 32_768)
    content = wav_bytes(SAMPLES.tobytes() + bytes(2 * zeros), data_size=2 * len(SAMPLES))
    np.testing.assert_array_equal(read_live(io.BytesIO(content)), WANT)


@pytest.mark.parametrize(
    ("file_format", "subtype"),
    [
        ("WAV", "IMA_ADPCM"),
        ("WAV", "MS_ADPCM"),
        ("WAV", "GSM610"),
        ("W64", "MS_ADPCM"),
        ("AIFF", "IMA_ADPCM"),
    ],
)
def test_a_cut_between_compressed_samples(tmp_path, file_format, subtype):
    path = write(tmp_path / "a", noise(19_840), 16_000, file_format, subtype)
    content = path.read_bytes()
    whole = read(path)
    np.testing.assert_array_equal(read_live(io.BytesIO(content)), whole)
    for part in (0.5, 0.9):
        have, message = live_error(content[: int(part * len(content))])
        assert "truncated" in message
        assert abs(len(have) - part * len(whole)) < 1_100  # A block has up to 1017 samples.
        np.testing.assert_array_equal(have, whole[: len(have)])


@pytest.mark.parametrize("subtype", ["MS_ADPCM", "GSM610"])
def test_compressed_samples_of_unknown_length(tmp_path, subtype):
    path = write(tmp_path / "a", noise(19_840), 16_000, "WAV", subtype)
    content = bytearray(path.read_bytes())
    struct.pack_into("<I", content, content.index(b"data") + 4, 2**32 - 1)
    have, want = read_live(io.BytesIO(content)), read(path)
    np.testing.assert_array_equal(have[: len(want)], want)
    assert len(want) <= len(have) < len(want) + 1_100  # The last block is filled.


FLV = b"FLV\1\5\0\0\0\x09\0\0\0\0" + 3 * (b"\x08\0\0\x20" + bytes(7 + 32 + 4))
AVI = b"RIFF" + struct.pack("<I", 304) + b"AVI " + bytes(300)
PAGE = b"OggS\0" + bytes(21) + b"\3\xff\xff\x0a" + bytes(520)
ASF = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c") + struct.pack("<Q", 64) + bytes(40)
ASF += bytes.fromhex("3626b2758e66cf11a6d900aa0062ce6c") + struct.pack("<Q", 90) + bytes(66)
MP4 = b"\0\0\0\x10ftypM4A \0\0\0\0" + b"\0\0\0\x40mdat" + bytes(56) + b"\0\0\0\x08free"


@pytest.mark.parametrize("step", [1, 7, 10_000])
@pytest.mark.parametrize(
    ("name", "content", "parts"),
    [
        ("FLV", FLV, (13, 60, 107, 154)),
        ("AVI", AVI, (312,)),
        ("Ogg", 3 * PAGE, (550, 1_100, 1_650)),
        ("ASF", ASF, (64, 154)),
        ("MP4", MP4, (16, 80, 88)),
    ],
    ids=["FLV", "AVI", "Ogg", "ASF", "MP4"],
)
def test_a_cut_within_a_part_of_a_film_is_seen(name, content, parts, step):
    def loss(length):
        film = FilmEnd((content[k : min(k + step, length)] for k in range(0, length, step)), name)
        assert b"".join(film) == content[:length]
        return film.loss

    assert parts[-1] == len(content)
    for part in parts:
        assert loss(part) == ""
        assert f" {part} bytes" in loss(part - 3)
    end = len(content)
    for tag in (b"TAG" + bytes(125), b"APETAGEX" + struct.pack("<4I8x", 2_000, 32, 0, 1 << 31)):
        content = content[:end] + tag
        assert loss(len(content)) == ""
