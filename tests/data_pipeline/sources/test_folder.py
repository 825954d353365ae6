"""Recordings as a source of clips: windows of files of any kind, compared with the whole."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import soundfile

from data_pipeline.sources.clips import Clip
from data_pipeline.sources.folder import (
    FolderSource,
    read_part,
)
from sat_jax.audio import read_blocks
from sat_jax.errors import SatError
from tests.audio.test_lengths import uncounted_mp3

RATE = 16_000
KINDS = {
    "16k.wav": (16_000, "PCM_16"),
    "16k.flac": (16_000, "PCM_16"),
    "44k.flac": (44_100, "PCM_24"),
    "48k.wav": (48_000, "FLOAT"),
    "8k.ogg": (8_000, "VORBIS"),
    "24k.mp3": (24_000, "MPEG_LAYER_III"),
    "adpcm.wav": (16_000, "IMA_ADPCM"),
}


@pytest.fixture(scope="module", params=KINDS)
def recording(request, tmp_path_factory):
    """A file of 7.3 s of stereo noise, and all its samples as read from the beginning."""
    rate, subtype = KINDS[request.param]
    path = tmp_path_factory.mktemp("kinds") / request.param
    noise = 0.2 * np.random.default_rng(rate).standard_normal((round(7.3 * rate), 2))
    soundfile.write(path, noise.clip(-1, 1), rate, subtype=subtype)
    return path, np.concatenate(list(read_blocks(path)))


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Seven recordings of 1 s, 0.9 s, …; recording i holds the constant i / 10, and class i."""
    folder = tmp_path_factory.mktemp("clips")
    for i in range(7):
        soundfile.write(folder / f"{i}.wav", np.full(16_000 - 1600 * i, i / 10), 16_000)
    return [Clip(folder / f"{i}.wav", (i,), f"{i}.wav") for i in range(7)]


@pytest.fixture(scope="module")
def ramp(tmp_path_factory):
    """A recording of 1 s whose sample i is i."""
    path = tmp_path_factory.mktemp("ramp") / "ramp.wav"
    soundfile.write(path, np.arange(16_000, dtype=np.float32), 16_000, subtype="FLOAT")
    return path


def source_of(path, start=0.0, end=None):
    return FolderSource([Clip(path, (), path.name, start, end)])


# --- the source


@pytest.mark.parametrize(
    ("start", "num_samples"), [(0.0, 8000), (2.0, 8000), (4.7, 32_000), (6.9, 9600), (3.25, None)]
)
def test_a_window_is_cut_out_of_the_whole(recording, start, num_samples):
    path, whole = recording
    first = round(start * RATE)
    expected = whole[first:] if num_samples is None else whole[first : first + num_samples]
    window = source_of(path).read(0, num_samples=num_samples, start=start)
    assert window.dtype == np.float32
    # Where resampling starts makes a difference in the last digits.
    atol = 0 if read_rate(path) == RATE else 3e-6
    np.testing.assert_allclose(window, expected, rtol=0, atol=atol)


def read_rate(path):
    return soundfile.info(path).samplerate


@pytest.mark.parametrize("place", [0.0, 0.4, 0.999999])
@pytest.mark.parametrize("num_samples", [1, 30_000, 500_000])
def test_a_window_lies_where_the_protocol_says(recording, place, num_samples):
    path, whole = recording
    first = int(place * max(1, len(whole) - num_samples + 1))
    window = source_of(path).read(0, num_samples=num_samples, place=place)
    np.testing.assert_allclose(window, whole[first : first + num_samples], rtol=0, atol=3e-6)


@pytest.mark.parametrize(("start", "end"), [(2.5, 4.0), (3.0, None), (0.0, 1.25), (5.0, 99.0)])
def test_a_part_of_a_file_is_a_clip(recording, start, end):
    path, whole = recording
    part = whole[round(start * RATE) : None if end is None else round(end * RATE)]
    source = source_of(path, start, end)
    for place, num_samples in ((0.0, None), (0.3, 8000), (0.999999, 8000), (0.5, 200_000)):
        first = 0 if num_samples is None else int(place * max(1, len(part) - num_samples + 1))
        expected = part[first:] if num_samples is None else part[first : first + num_samples]
        window = source.read(0, num_samples=num_samples, place=place)
        np.testing.assert_allclose(window, expected, rtol=0, atol=3e-6)
    later = source.read(0, num_samples=4000, start=0.5)
    np.testing.assert_allclose(later, part[8000:12_000], rtol=0, atol=3e-6)


@pytest.mark.parametrize("name", ["long.wav", "long.flac"])
def test_samples_before_a_window_are_not_read(tmp_path, monkeypatch, name):
    soundfile.write(tmp_path / name, np.zeros(100 * RATE), RATE)
    frames = []
    read = soundfile.SoundFile.read

    def counting(self, *args, **options):
        block = read(self, *args, **options)
        frames.append(len(block))
        return block

    monkeypatch.setattr(soundfile.SoundFile, "read", counting)
    source_of(tmp_path / name).read(0, num_samples=2 * RATE, start=95.5)
    assert 2 * RATE <= sum(frames) <= 5 * RATE


def test_a_damaged_file_is_named_wherever_the_window_lies(tmp_path):
    path = tmp_path / "cut.flac"
    noise = 0.1 * np.random.default_rng(0).standard_normal(20 * RATE)
    soundfile.write(path, noise, RATE)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    for start in (12.0, 19.0):
        with pytest.raises(SatError, match=r"cut\.flac"):
            source_of(path).read(0, num_samples=RATE, start=start)
    good = source_of(path).read(0, num_samples=RATE, start=5.0)
    np.testing.assert_allclose(good, noise[5 * RATE : 6 * RATE], atol=1e-4)


@pytest.mark.parametrize(
    "kind", ["joined.wav", "joined.flac", "joined.mp3", "joined.ogg", "tag.flac"]
)
def test_windows_of_files_with_more_than_one_sound(tmp_path, kind):
    path = tmp_path / kind
    noise = 0.1 * np.random.default_rng(0).standard_normal(3 * RATE)
    soundfile.write(path, noise, RATE)
    content = path.read_bytes()
    path.write_bytes(content + (b"TAG" + bytes(125) if kind == "tag.flac" else content))
    whole = np.concatenate(list(read_blocks(path)))
    assert len(whole) == (3 if kind == "tag.flac" else 6) * RATE
    for place in (0.0, 0.4, 0.9):
        first = int(place * (len(whole) - 8000 + 1))
        window = source_of(path).read(0, num_samples=8000, place=place)
        np.testing.assert_array_equal(window, whole[first : first + 8000])
    np.testing.assert_array_equal(source_of(path).read(0, num_samples=None), whole)
    np.testing.assert_array_equal(source_of(path, 2.5).read(0, num_samples=None), whole[40_000:])
    np.testing.assert_array_equal(
        source_of(path, 2.0, 3.0).read(0, num_samples=None), whole[32_000:48_000]
    )


def test_a_part_behind_the_estimated_end_of_an_mp3_is_found(tmp_path):
    path = tmp_path / "uncounted.mp3"
    path.write_bytes(uncounted_mp3(tmp_path))
    whole = np.concatenate(list(read_blocks(path)))
    assert soundfile.info(path).duration < 8
    window = source_of(path, 9.0, 9.9).read(0, num_samples=8000, place=0.5)
    np.testing.assert_array_equal(window, whole[9 * RATE + 3200 :][:8000])


@pytest.mark.parametrize(
    ("start", "end", "options", "named"),
    [
        (0.0, None, {"num_samples": 100, "start": 1.0}, "1 s"),
        (0.0, None, {"num_samples": None, "start": 7.0}, "7 s"),
        (0.5, 0.75, {"num_samples": 100, "start": 0.3}, "0.3 s"),
        (3.0, 4.0, {"num_samples": 100}, "ramp.wav"),
        (3.0, 4.0, {"num_samples": None}, "ramp.wav"),
    ],
)
def test_windows_after_the_end_are_refused(ramp, start, end, options, named):
    with pytest.raises(SatError, match=named) as error:
        source_of(ramp, start, end).read(0, **options)
    assert str(error.value).startswith(f"{ramp}: ")


@pytest.mark.parametrize("promised", [None, 2.0, 1.00002])
def test_an_unknown_or_wrong_length_only_moves_the_window(ramp, monkeypatch, promised):
    frames = None if promised is None else round(promised * RATE)
    monkeypatch.setattr("sat_jax.audio.parts.Part.frames", lambda part: frames)
    monkeypatch.setattr("sat_jax.audio.parts._SizedPart.frames", lambda part: frames)
    source = source_of(ramp)
    window = source.read(0, num_samples=4000, place=0.99999)
    np.testing.assert_array_equal(window, np.arange(12_000, 16_000))
    late = source.read(0, num_samples=4000, start=0.9)
    np.testing.assert_array_equal(late, np.arange(14_400, 16_000))


def test_parts_of_a_file_that_ends_before(ramp):
    assert len(read_part(ramp, 16_000, 17_000, None)) == 0
    assert len(read_part(ramp, 90_000, None, None)) == 0


def test_names_and_labels_are_the_tables(clips):
    table = FolderSource(clips).clips
    assert list(table.ids) == [f"{i}.wav" for i in range(7)]
    np.testing.assert_array_equal(table.targets(np.array([3, 0]), 9), np.eye(9)[[3, 0]])


def test_threads_read_the_same(clips):
    source = FolderSource(clips)
    turns = [i % 7 for i in range(70)]
    together = threading.Barrier(4)

    def read(job):
        if job < 4:
            together.wait()
        return source.read(turns[job], num_samples=800, place=0.5)

    with ThreadPoolExecutor(4) as pool:
        windows = list(pool.map(read, range(70)))
    for clip, window in zip(turns, windows, strict=True):
        np.testing.assert_allclose(window, clip / 10, atol=1e-4)
