"""Joined MP4 and ASF files."""

import os
import shutil
import subprocess

import pytest

from sat_jax.audio.films import find_films
from sat_jax.audio.parts import loss_by_header
from tests.support.sounds import noise, read, write

REAL_FFMPEG = shutil.which("ffmpeg")
ASF_HEADER = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")


def box(kind: bytes, size: int, *, is_long: bool = False) -> bytes:
    if is_long:
        return b"\0\0\0\1" + kind + size.to_bytes(8) + bytes(size - 16)
    return size.to_bytes(4) + kind + bytes(size - 8)


def asf(size: int) -> bytes:
    return (
        ASF_HEADER
        + (30).to_bytes(8, "little")
        + bytes(6)
        + bytes.fromhex("3626b275")
        + bytes(12)
        + (size - 30).to_bytes(8, "little")
        + bytes(size - 54)
    )


INDEX_LAST = box(b"ftyp", 28) + box(b"free", 8) + box(b"mdat", 900, is_long=True) + box(b"moov", 64)
FRAGMENTS = box(b"ftyp", 32) + box(b"moov", 50) + 3 * (box(b"moof", 40) + box(b"mdat", 70))
ID3 = b"ID3\3\0\0\0\0\0\12" + bytes(10)


@pytest.mark.parametrize(
    ("content", "starts"),
    [
        (INDEX_LAST, [0]),
        (INDEX_LAST + FRAGMENTS + INDEX_LAST, [0, 1_000, 1_412]),
        (INDEX_LAST + bytes(500), [0]),
        (ID3 + INDEX_LAST + INDEX_LAST, [20, 1_020]),
        (box(b"ftyp", 20) + box(b"ftyp", 20) + INDEX_LAST, [0]),  # No index yet: one file.
        (INDEX_LAST[:400], [0]),
        (asf(300) + asf(200) + asf(100), [0, 300, 500]),
        (asf(300) + b"TAG" + bytes(125), [0]),
        (b"\x1a\x45\xdf\xa3" + bytes(300), [0]),
    ],
)
def test_where_joined_files_begin(content, starts, tmp_path):
    (tmp_path / "a").write_bytes(content)
    with open(tmp_path / "a", "rb", buffering=0) as file:
        spans = find_films(file, 0, len(content))
    assert spans == list(zip(starts, [*starts[1:], len(content)], strict=True))


@pytest.mark.parametrize(
    ("content", "loss"),
    [
        (asf(300)[:200], "truncated: 200 of 300 bytes are there"),
        (asf(300), ""),
        (asf(300) + bytes(80), ""),
        (ASF_HEADER + bytes(300), ""),
        (ASF_HEADER + b"\xff" * 300, f"truncated: 316 of {2**64 - 1} bytes are there"),
        (INDEX_LAST[:400], ""),  # ffmpeg says it.
    ],
)
def test_what_asf_sizes_say_is_missing(content, loss, tmp_path):
    (tmp_path / "a").write_bytes(content)
    with open(tmp_path / "a", "rb", buffering=0) as file:
        assert loss_by_header(file, 0, len(content)) == loss


@pytest.mark.skipif(REAL_FFMPEG is None, reason="ffmpeg is not installed")
def test_all_of_joined_films_is_read(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", os.path.dirname(REAL_FFMPEG))
    write(tmp_path / "a.wav", noise(32_000), 16_000)
    for name in ("a.m4a", "a.wma"):
        command = [REAL_FFMPEG, "-v", "error", "-i", tmp_path / "a.wav", tmp_path / name]
        subprocess.run(command, stdin=subprocess.DEVNULL, check=True)
        alone, content = read(tmp_path / name), (tmp_path / name).read_bytes()
        assert len(alone) > 31_000
        (tmp_path / name).write_bytes(ID3 + 2 * content)
        assert read(tmp_path / name).tolist() == 2 * alone.tolist()
