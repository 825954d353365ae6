"""Damaged, chained and live Ogg files."""

import functools
import re

import numpy as np
import pytest

from sat_jax.audio import read_blocks
from sat_jax.audio.films import FilmEnd
from sat_jax.errors import SatError
from tests.support.sounds import noise, read, write


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


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_chained_streams_are_all_read(ogg_file, tmp_path, subtype):
    content, whole = ogg_file(subtype)
    cut = content[: ogg_pages(content)[-1]]
    (tmp_path / "a.ogg").write_bytes(cut)
    want = np.concatenate([read(tmp_path / "a.ogg"), whole, whole])
    (tmp_path / "a.ogg").write_bytes(cut + content * 2)
    np.testing.assert_array_equal(read(tmp_path / "a.ogg"), want)


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


@pytest.mark.parametrize("size", [1, 7, 5_000, 10**6])
def test_a_stream_that_ends_within_a_page(ogg_file, size):
    content, _ = ogg_file("VORBIS")
    pages = ogg_pages(content)
    ends = [*pages[1:4], len(content)]
    for end in [*ends, *(each - 1 for each in ends), *(each + 20 for each in ends[:-1])]:
        pieces = [content[start : min(start + size, end)] for start in range(0, end, size)]
        stream = FilmEnd(pieces, "Ogg")
        assert list(stream) == pieces
        assert bool(stream.loss) == (end not in ends)
    stream = FilmEnd([content, b"TAG", bytes(99)], "Ogg")
    list(stream)
    assert not stream.loss
