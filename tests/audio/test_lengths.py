"""Files whose header lies about their length, joined files, and tags: all sound is heard."""

import os
import struct

import numpy as np
import pytest
import soundfile

from sat_jax.audio import duration_seconds, read_blocks
from sat_jax.audio.layout import find_samples
from sat_jax.errors import SatError
from tests.audio.test_files import wav_bytes
from tests.support.sounds import FORMATS, error_of, noise, read

RATE = 16_000
ID3V1 = b"TAG" + bytes(125)
ID3V2 = b"ID3\3\0\0\0\0\2\0" + bytes(256)
ID3_TITLE = b"ID3\3\0\0\0\0\0\x14TIT2\0\0\0\x0a\0\0" + b"some title"
APE = b"x" * 8 + struct.pack("<8s4I8x", b"APETAGEX", 2000, 40, 1, 0)
TAGS = {
    "id3v1": ID3V1,
    "id3v1 behind ape": APE + ID3V1,
    "lyrics": b"LYRICSBEGIN" + b"IND00002" + b"00" + b"000021LYRICS200" + ID3V1,
    "id3v2": ID3V2,
    "zeros": bytes(4096),
}
CUT_FORMATS = {
    **{name: "PCM_16" for name in ("WAV", "RF64", "W64", "AIFF", "SVX", "CAF", "AU", "NIST")},
    **{name: "PCM_16" for name in ("VOC", "AVR", "MPC2K", "SDS", "MAT4")},
    "WVE": "ALAW",
    "FLAC": "PCM_16",
    "MP3": "MPEG_LAYER_III",
}
SIZE_FIELDS = {  # Where the format's smallest header has the size, and how.
    ("WAV", "PCM_16"): (40, "<I"),
    ("WAV", "IMA_ADPCM"): (56, "<I"),
    ("AIFF", "PCM_16"): (42, ">I"),
    ("AU", "PCM_16"): (8, ">I"),
    ("CAF", "PCM_16"): (4084, ">Q"),
    ("W64", "PCM_16"): (96, "<Q"),
    ("RF64", "PCM_16"): (28, "<Q"),
}


def encoded(folder, file_format="WAV", subtype="PCM_16", *, frames=40_000):
    """Returns the bytes of a file of noise, and its samples."""
    path = folder / f"whole.{file_format}"
    rate = 8_000 if file_format == "WVE" else RATE
    soundfile.write(path, noise(frames)[:, 0], rate, format=file_format, subtype=subtype)
    return path.read_bytes(), read(path)


def with_size(content, position, form, size):
    """Returns a file with another size in its header."""
    width = struct.calcsize(form)
    field = (size % 256**width).to_bytes(width, "little" if form[0] == "<" else "big")
    return content[:position] + field + content[position + width :]


def samples_of(folder, content):
    (folder / "a").write_bytes(content)
    return read(folder / "a")


def read_before_error(folder, content):
    """Returns the samples before the error of a damaged file."""
    (folder / "a").write_bytes(content)
    blocks = []
    with pytest.raises(SatError, match=str(folder / "a")):
        blocks.extend(read_blocks(folder / "a", block_seconds=0.2))
    return np.concatenate(blocks)


def uncounted_mp3(folder, *, quiet_seconds=8):
    """Returns an MP3 stream without Xing header: loud, then quiet, so that its bit rate falls."""
    sound = np.concatenate([noise(RATE * 2)[:, 0] * 9, noise(RATE * quiet_seconds)[:, 0] * 1e-3])
    path = folder / "variable.mp3"
    options = {"format": "MP3", "subtype": "MPEG_LAYER_III", "bitrate_mode": "VARIABLE"}
    with soundfile.SoundFile(path, "w", RATE, 1, compression_level=0.0, **options) as file:
        file.write(sound.clip(-0.9, 0.9))
    content = path.read_bytes()
    mark = content.find(b"Xing")
    return content[content.find(content[:2], mark) :]


# --- headers that lie


@pytest.mark.parametrize(("file_format", "subtype"), SIZE_FIELDS)
@pytest.mark.parametrize("size", [0, 512, 2**31 - 1, -1])
def test_all_samples_are_read_whatever_the_header_says(tmp_path, file_format, subtype, size):
    content, whole = encoded(tmp_path, file_format, subtype)
    position, form = SIZE_FIELDS[file_format, subtype]
    width = struct.calcsize(form)
    if size == 2**31 - 1 and width == 8:
        pytest.skip("64-bit sizes have no such placeholder")
    (real,) = struct.unpack_from(form, content, position)
    assert 0 <= len(content) - real < 5_000, "the header has its size elsewhere"
    changed = with_size(content, position, form, size)
    np.testing.assert_array_equal(samples_of(tmp_path, changed), whole)
    assert duration_seconds(tmp_path / "a") == len(whole) / RATE


@pytest.mark.parametrize("extra", [44, 36, 8])
def test_a_size_that_counts_the_header_is_no_loss(tmp_path, extra):
    samples = np.arange(3_000, dtype="<i2")
    for riff_size in (None, 36 + extra + samples.nbytes):
        if riff_size is not None and extra == 8:
            continue
        content = wav_bytes(
            samples.tobytes(), data_size=samples.nbytes + extra, riff_size=riff_size
        )
        np.testing.assert_array_equal(samples_of(tmp_path, content), samples / 32_768)


@pytest.mark.parametrize("extra", [-8, 0, 44])
@pytest.mark.parametrize(
    ("file_format", "subtype"),
    [("WAV", "ULAW"), ("WAVEX", "PCM_16"), ("AIFF", "PCM_16"), ("AIFF", "FLOAT")],
)
def test_a_size_that_counts_a_longer_header_is_no_loss(tmp_path, file_format, subtype, extra):
    content, whole = encoded(tmp_path, file_format, subtype)
    name, order, lead = (b"SSND", "big", 8) if file_format == "AIFF" else (b"data", "little", 0)
    place = content.find(name) + 4
    extra = extra if extra > 0 else extra + place + 4 + lead
    size = int.from_bytes(content[place : place + 4], order) + extra
    changed = content[:place] + size.to_bytes(4, order) + content[place + 4 :]
    np.testing.assert_array_equal(samples_of(tmp_path, changed), whole)


def test_a_second_data_chunk_is_told(tmp_path):
    samples = np.arange(1, 3_001, dtype="<i2")
    content = wav_bytes(samples.tobytes())
    for between in (b"", b"LIST" + struct.pack("<I", 4) + b"INFO"):
        changed = content + between + content[36:]
        np.testing.assert_array_equal(read_before_error(tmp_path, changed), samples / 32_768)
        assert "get the whole file" not in error_of(tmp_path / "a")  # It is whole.
        assert duration_seconds(tmp_path / "a") is None


def test_chunks_and_padding_behind_the_samples_are_no_sound(tmp_path):
    samples = np.arange(1, 3_001, dtype="<i2")
    content = wav_bytes(samples.tobytes())
    chunk = b"LIST" + struct.pack("<I", 12) + b"INFOISFT" + bytes(4)
    for rest in (chunk, chunk * 2, bytes(2048), chunk + bytes(100), chunk + ID3V1):
        np.testing.assert_array_equal(samples_of(tmp_path, content + rest), samples / 32_768)


def test_a_size_beyond_four_gigabytes(tmp_path):
    path = tmp_path / "long.wav"
    path.write_bytes(wav_bytes(bytes(range(100)), data_size=1_000))
    size = 2**32 + 1_000
    os.truncate(path, 44 + size)  # A hole: it takes no room on the disk.
    with path.open("r+b", buffering=0) as file:
        file.seek(44 + 2_000)
        file.write(b"sound")
        layout = find_samples(file, 0, 44 + size)
        assert layout is not None and layout.available == size and not layout.missing
        assert soundfile.SoundFile(layout.view).frames == size // 2


@pytest.mark.parametrize(
    "file_format", sorted(soundfile.available_formats().keys() - {"RAW", "SD2"})
)
def test_every_whole_file_is_read_as_libsndfile_does(tmp_path, file_format):
    path = tmp_path / "a"
    for subtype in soundfile.available_subtypes(file_format):
        try:
            soundfile.write(path, noise(9_000)[:, 0], RATE, format=file_format, subtype=subtype)
            whole, rate = soundfile.read(path, dtype="float32")
        except soundfile.LibsndfileError:
            continue  # It can't write some, and can't seek in others.
        np.testing.assert_allclose(read(path, sample_rate=rate), whole, rtol=0, atol=1e-7)


# --- joined files and tags


@pytest.mark.parametrize(("_", "file_format", "subtype"), FORMATS)
def test_joined_files_are_read_one_after_another(tmp_path, _, file_format, subtype):
    content, whole = encoded(tmp_path, file_format, subtype)
    for joint in (b"", ID3V2, ID3V1 + ID3V2):
        result = samples_of(tmp_path, content + joint + content)
        np.testing.assert_array_equal(result, np.concatenate([whole, whole]))
    assert duration_seconds(tmp_path / "a") is None


@pytest.mark.parametrize("second", ["MP3", "FLAC", "WAV"])
def test_unknown_bytes_between_joined_files_hide_no_sound(tmp_path, second):
    content, whole = encoded(tmp_path, "MP3", "MPEG_LAYER_III")
    other, rest = encoded(tmp_path, second, CUT_FORMATS[second])
    for joint in (APE, b"\1\xff\xfb\xff\2" * 99):
        result = samples_of(tmp_path, content + joint + other)
        np.testing.assert_array_equal(result, np.concatenate([whole, rest]))


@pytest.mark.parametrize("second", ["WAV", "FLAC", "AU", "MP3"])
@pytest.mark.parametrize("first", ["WAV", "AIFF", "AU", "W64", "CAF", "NIST", "FLAC"])
def test_files_of_different_formats_are_joined(tmp_path, first, second):
    content, whole = encoded(tmp_path, first)
    other, rest = encoded(tmp_path, second, CUT_FORMATS.get(second, "PCM_16"))
    np.testing.assert_array_equal(
        samples_of(tmp_path, content + other), np.concatenate([whole, rest])
    )


@pytest.mark.parametrize(
    "second", ["WAV", "RF64", "AIFF", "AU", "FLAC", "CAF", "W64", "OGG", "MP3"]
)
@pytest.mark.parametrize(("file_format", "subtype"), SIZE_FIELDS)
def test_behind_open_sizes_another_file_is_heard(tmp_path, file_format, subtype, second):
    content, whole = encoded(tmp_path, file_format, subtype)
    codec = {"OGG": "VORBIS", "MP3": "MPEG_LAYER_III"}.get(second, "PCM_16")
    other, rest = encoded(tmp_path, second, codec)
    for size in (0, 512, -1):
        changed = with_size(content, *SIZE_FIELDS[file_format, subtype], size)
        for joint in (ID3_TITLE,) if second == "MP3" else (b"", ID3_TITLE):
            joined = changed + joint + other
            np.testing.assert_array_equal(
                samples_of(tmp_path, joined), np.concatenate([whole, rest])
            )
            assert duration_seconds(tmp_path / "a") is None


@pytest.mark.parametrize("second", ["WAV", "AIFF", "AU", "OGG", "CAF"])
@pytest.mark.parametrize("first", ["FLAC", "MP3"])
def test_behind_sounds_without_a_length_another_file_is_heard(tmp_path, first, second):
    if first == "MP3":
        content = uncounted_mp3(tmp_path, quiet_seconds=1)
    else:
        content, _ = encoded(tmp_path, first)
        content = content[:21] + bytes([content[21] & 0xF0]) + bytes(4) + content[26:]
    other, rest = encoded(tmp_path, second, "VORBIS" if second == "OGG" else "PCM_16")
    whole = samples_of(tmp_path, content)
    np.testing.assert_array_equal(
        samples_of(tmp_path, content + other), np.concatenate([whole, rest])
    )


def test_samples_that_a_size_counts_are_no_file(tmp_path):
    samples = np.arange(3_000, dtype="<i2")
    inner = wav_bytes(samples.tobytes())
    whole = np.frombuffer(inner, "<i2") / 32_768
    np.testing.assert_array_equal(samples_of(tmp_path, wav_bytes(inner)), whole)


@pytest.mark.parametrize("tag", TAGS)
@pytest.mark.parametrize(
    ("file_format", "subtype"),
    [
        ("WAV", "PCM_16"),
        ("FLAC", "PCM_16"),
        ("MP3", "MPEG_LAYER_III"),
        ("OGG", "VORBIS"),
        ("AIFF", "PCM_16"),
    ],
)
def test_tags_around_a_file_are_no_sound(tmp_path, tag, file_format, subtype):
    content, whole = encoded(tmp_path, file_format, subtype)
    length = duration_seconds(tmp_path / "whole.WAV") if file_format == "WAV" else None
    np.testing.assert_array_equal(samples_of(tmp_path, content + TAGS[tag]), whole)
    assert length is None or duration_seconds(tmp_path / "a") == length
    np.testing.assert_array_equal(samples_of(tmp_path, ID3V2 * 2 + content + TAGS[tag]), whole)


def test_zeros_behind_mp3_in_wav_are_no_sound(tmp_path):
    options = {"format": "MP3", "subtype": "MPEG_LAYER_III", "bitrate_mode": "CONSTANT"}
    with soundfile.SoundFile(tmp_path / "mp3", "w", RATE, 1, **options) as file:
        file.write(noise(3 * RATE)[:, 0])
    stream = (tmp_path / "mp3").read_bytes()
    form = struct.pack("<HHIIHHHHIHHH", 0x55, 1, RATE, 16_000, 1, 0, 12, 1, 2, 1_152, 1, 0)
    chunks = b"WAVEfmt " + struct.pack("<I", len(form)) + form
    chunks += b"data" + struct.pack("<I", len(stream)) + stream + bytes(len(stream) % 2)
    content = b"RIFF" + struct.pack("<I", len(chunks)) + chunks
    whole = samples_of(tmp_path, content)
    assert len(whole) > 2.9 * RATE
    for behind in (bytes(5_000), b"LIST\4\0\0\0INFO" + bytes(5_000)):
        np.testing.assert_array_equal(samples_of(tmp_path, content + behind), whole)


# --- losses


@pytest.mark.parametrize("file_format", CUT_FORMATS)
def test_a_cut_file_is_told(tmp_path, file_format):
    content, whole = encoded(tmp_path, file_format, CUT_FORMATS[file_format])
    for size in (len(content) // 2, len(content) - 200):
        samples = read_before_error(tmp_path, content[:size])
        if file_format == "SDS":
            continue  # libsndfile repeats its last packet.
        np.testing.assert_array_equal(samples, whole[: len(samples)])
        # FLAC frames have up to 4096 samples.
        assert abs(len(samples) - len(whole) * size / len(content)) < 4_500


@pytest.mark.parametrize("file_format", ["WAV", "FLAC", "MP3"])
def test_what_cannot_be_read_behind_a_sound_is_told(tmp_path, file_format):
    content, whole = encoded(tmp_path, file_format, CUT_FORMATS[file_format])
    behind = encoded(tmp_path)[0][:30] if file_format == "WAV" else b"\1\2\3\4" * 25_000
    np.testing.assert_array_equal(read_before_error(tmp_path, content + behind), whole)


# --- MP3


def test_mp3_without_a_count_is_read_to_its_end(tmp_path):
    content = uncounted_mp3(tmp_path)
    (tmp_path / "a").write_bytes(content)
    assert soundfile.info(tmp_path / "a").duration < 8  # libsndfile's estimate
    assert len(read(tmp_path / "a")) == pytest.approx(10 * RATE, abs=0.1 * RATE)
    assert duration_seconds(tmp_path / "a") is None


def test_damage_of_mp3_without_a_count_is_told(tmp_path):
    content = uncounted_mp3(tmp_path)
    whole = samples_of(tmp_path, content)
    cut = read_before_error(tmp_path, content[:-5])
    np.testing.assert_array_equal(cut, whole[: len(cut)])
    half = len(content) // 2
    for hole in (b"\1" * 100, b"\1" * 5_000):
        assert len(read_before_error(tmp_path, content[:half] + hole + content[half:]))
    np.testing.assert_array_equal(samples_of(tmp_path, content + bytes(5_000)), whole)


def test_mp3_with_a_wrong_count(tmp_path):
    content, whole = encoded(tmp_path, "MP3", "MPEG_LAYER_III")
    mark = content.find(b"Xing") + 8
    count = int.from_bytes(content[mark : mark + 4])
    small = content[:mark] + (count - 20).to_bytes(4) + content[mark + 4 :]
    assert len(samples_of(tmp_path, small)) == pytest.approx(len(whole), abs=0.1 * RATE)
    large = content[:mark] + (count + 20).to_bytes(4) + content[mark + 4 :]
    assert len(read_before_error(tmp_path, large)) >= len(whole)


def test_a_longer_flac_than_its_header_says(tmp_path):
    content, whole = encoded(tmp_path, "FLAC")
    total = int.from_bytes(content[21:26]) - 30_000
    np.testing.assert_array_equal(
        samples_of(tmp_path, content[:21] + total.to_bytes(5) + content[26:]), whole
    )
    unknown = content[:21] + (total >> 36 << 36).to_bytes(5) + content[26:]
    np.testing.assert_array_equal(samples_of(tmp_path, unknown), whole)
