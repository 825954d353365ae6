"""Joined files and cut files that ffmpeg reads."""

import os
import shutil
import subprocess

import numpy as np
import pytest
import soundfile

from sat_jax.audio.films import find_end
from tests.audio.test_files import wav_bytes
from tests.support.sounds import noise, read, write

REAL_FFMPEG = shutil.which("ffmpeg")
ASF_HEADER = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")

ASF_DATA = bytes.fromhex("3626b2758e66cf11a6d900aa0062ce6c")


def box(kind: bytes, size: int, *, is_long: bool = False) -> bytes:
    if is_long:
        return b"\0\0\0\1" + kind + size.to_bytes(8) + bytes(size - 16)
    return size.to_bytes(4) + kind + bytes(size - 8)


def asf(size: int) -> bytes:
    return (
        ASF_HEADER
        + (30).to_bytes(8, "little")
        + bytes(6)
        + ASF_DATA
        + (size - 30).to_bytes(8, "little")
        + bytes(size - 54)
    )


INDEX_LAST = box(b"ftyp", 28) + box(b"free", 8) + box(b"mdat", 900, is_long=True) + box(b"moov", 64)
INDEX_FIRST = box(b"moov", 64) + box(b"mdat", 236)
QUICKTIME = box(b"wide", 8) + box(b"mdat", 100) + box(b"moov", 42)
FRAGMENTS = box(b"ftyp", 32) + box(b"moov", 50) + 3 * (box(b"moof", 40) + box(b"mdat", 70))
ID3 = b"ID3\3\0\0\0\0\0\12" + bytes(10)


def flv(tags: int) -> bytes:
    return b"FLV\1\4\0\0\0\x09" + bytes(4) + tags * (b"\x08\0\0\x20" + bytes(43))


def avi(size: int) -> bytes:
    return b"RIFF" + (size - 8).to_bytes(4, "little") + b"AVI " + bytes(size - 12)


def matroska(size: int) -> bytes:
    segment = b"\x18\x53\x80\x67\x01" + size.to_bytes(7)
    return b"\x1a\x45\xdf\xa3\x80" + segment + bytes(size)


@pytest.mark.parametrize(
    ("content", "ends"),
    [
        (INDEX_LAST, [1_000]),
        (INDEX_LAST + FRAGMENTS + INDEX_LAST, [1_000, 1_412, 2_412]),
        (INDEX_LAST + bytes(500), [1_000, 1_500]),
        (INDEX_LAST + ID3 + INDEX_LAST, [1_020, 2_020]),
        (box(b"ftyp", 20) + box(b"ftyp", 20) + INDEX_LAST, [1_040]),  # No index yet: one file.
        (INDEX_LAST + wav_bytes(b""), [1_000, 1_044]),
        (INDEX_LAST[:400], [936]),
        (INDEX_FIRST[:64] + bytes(4) + INDEX_FIRST[68:], [300]),
        (3 * QUICKTIME, [150, 300, 450]),
        (2 * QUICKTIME[8:], [142, 284]),
        (2 * INDEX_FIRST + QUICKTIME + FRAGMENTS, [300, 600, 750, 1_162]),
        (FRAGMENTS + 2 * QUICKTIME, [412, 562, 712]),
        (asf(300) + asf(200) + asf(100), [300, 500, 600]),
        (asf(300) + flv(1), [300, 360]),
        (asf(300) + b"TAG" + bytes(125), [428]),
        (asf(300)[:200], [300]),
        (asf(80) + bytes(400), [480]),  # A live writer does not know the size.
        (asf(300) + b"junk with a size" + bytes(200), [516]),
        (flv(3) + flv(2) + asf(100), [154, 261, 361]),
        (flv(3)[:-5], [154]),
        (flv(3) + bytes(500), [154, 654]),
        (avi(200) + avi(100).replace(b"AVI ", b"AVIX") + avi(50), [300, 350]),
        (avi(200)[:150], [200]),
        (INDEX_LAST + b"Creative Voice File" + bytes(40), [1_000, 1_059]),
        (matroska(300) + matroska(2_000_000)[:400], [317, 2_000_334]),
        (matroska(300) + wav_bytes(b"") + matroska(20), [317, 361, 398]),
        (matroska(300)[:9] + b"\1" + b"\xff" * 7 + bytes(300), [317]),  # A live writer.
    ],
)
def test_where_a_file_ends_by_its_sizes(content, ends, tmp_path):
    (tmp_path / "a").write_bytes(content + b"tag behind" * 9)
    found = [0]
    with open(tmp_path / "a", "rb", buffering=0) as file:
        while found[-1] < len(content):
            found.append(find_end(file, found[-1], len(content)))
    assert found[1:] == ends


def test_where_an_ogg_file_ends(tmp_path):
    soundfile.write(tmp_path / "a", noise(4_000)[:, 0], 16_000, format="OGG", subtype="VORBIS")
    content = (tmp_path / "a").read_bytes()
    for behind in (b"", bytes(500), content, wav_bytes(b"")):
        (tmp_path / "a").write_bytes(content + behind)
        with open(tmp_path / "a", "rb", buffering=0) as file:
            assert find_end(file, 0, len(content + behind)) == len(content)


@pytest.mark.skipif(REAL_FFMPEG is None, reason="needs an installed ffmpeg")
def test_all_of_joined_films_is_read(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", os.path.dirname(REAL_FFMPEG))
    write(tmp_path / "a.wav", noise(32_000), 16_000)
    for name, codec in (("a.m4a", "aac"), ("a.wma", "wmav2"), ("a.flv", "aac")):
        command = [REAL_FFMPEG, "-v", "error", "-i", tmp_path / "a.wav"]
        command += ["-c:a", codec, tmp_path / name]
        subprocess.run(command, stdin=subprocess.DEVNULL, check=True)
        alone, content = read(tmp_path / name), (tmp_path / name).read_bytes()
        assert len(alone) > 31_000
        (tmp_path / name).write_bytes(ID3 + 2 * content)
        assert read(tmp_path / name).tolist() == 2 * alone.tolist()
        (tmp_path / "other").write_bytes((tmp_path / "a.wav").read_bytes() + content)
        whole = np.concatenate([read(tmp_path / "a.wav"), alone])
        np.testing.assert_array_equal(read(tmp_path / "other"), whole)
