"""Clips in HDF5 files: windows of the arrays in them, and errors that name file and value."""

import re
from concurrent.futures import ThreadPoolExecutor

import h5py
import numpy as np
import pytest

from data_pipeline.sources import hdf5
from data_pipeline.sources.hdf5 import Hdf5Source
from sat_jax.errors import SatError

RATE = 16_000
HEADER = "filename\tlabels\tduration\thdf5path\n"


@pytest.fixture(scope="module")
def arrays():
    """int16 clips by name, some of an odd length."""
    rng = np.random.default_rng(0)
    return {
        f"c{i}_0.0_10.0.wav": rng.integers(-32_768, 32_767, 4000 + 331 * i, np.int16, endpoint=True)
        for i in range(12)
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory, arrays):
    """Clip i lies in file i % 5, one of them in a folder of its own; clip i is of class i."""
    folder = tmp_path_factory.mktemp("hdf5")
    (folder / "sub").mkdir()
    files = ["0.h5", "1.h5", "2.h5", "3.h5", "sub/4.h5"]
    rows = []
    for i, (name, samples) in enumerate(arrays.items()):
        with h5py.File(folder / files[i % 5], "a") as file:
            file.create_dataset(name, data=samples, chunks=i % 2 == 0 or None)
        rows.append(f"{name}\t{i};0\t{len(samples) / RATE}\t{files[i % 5]}\n")
    (folder / "clips.tsv").write_text(HEADER + "".join(rows))
    return folder


def read_all(source, num_samples=None, **where):
    return [source.read(i, num_samples=num_samples, **where) for i in range(len(source.clips.ids))]


def test_whole_clips_names_and_labels(folder, arrays):
    source = Hdf5Source(folder / "clips.tsv", num_classes=12)
    assert list(source.clips.ids) == list(arrays)
    expected = np.eye(12)
    expected[:, 0] = 1
    np.testing.assert_array_equal(source.clips.targets(np.arange(12), 12), expected)
    for window, samples in zip(read_all(source), arrays.values(), strict=True):
        assert window.dtype == np.float32
        np.testing.assert_array_equal(window, samples / 32_768)


@pytest.mark.parametrize("place", [0.0, 0.37, 0.999999])
@pytest.mark.parametrize("num_samples", [1, 3999, 60_000])
def test_windows_lie_where_the_protocol_says(folder, arrays, place, num_samples):
    source = Hdf5Source(folder / "clips.tsv", num_classes=12)
    windows = read_all(source, num_samples, place=place)
    for window, samples in zip(windows, arrays.values(), strict=True):
        first = int(place * max(1, len(samples) - num_samples + 1))
        np.testing.assert_array_equal(window * 32_768, samples[first : first + num_samples])


def test_windows_at_a_time(folder, arrays):
    source = Hdf5Source(folder / "clips.tsv", num_classes=12)
    for window, samples in zip(read_all(source, 2000, start=0.2), arrays.values(), strict=True):
        np.testing.assert_array_equal(window * 32_768, samples[3200:5200])


def test_threads_read_the_same_with_few_open_files(folder, arrays, monkeypatch):
    monkeypatch.setattr(hdf5, "_MAX_OPEN_FILES", 2)
    source = Hdf5Source(folder / "clips.tsv", num_classes=12)
    turns = [7 * i % 12 for i in range(240)]
    with ThreadPoolExecutor(8) as pool:
        windows = list(pool.map(lambda clip: source.read(clip, num_samples=None), turns))
    samples = list(arrays.values())
    for clip, window in zip(turns, windows, strict=True):
        np.testing.assert_array_equal(window * 32_768, samples[clip])


def test_hdf5_paths_are_relative_to_the_given_folder_or_absolute(folder, tmp_path, arrays):
    name, *_ = arrays
    for path in ("0.h5", folder / "0.h5"):
        (tmp_path / "t.tsv").write_text(f"hdf5path\tfilename\tlabels\r\n{path}\t{name}\t\r\n")
        source = Hdf5Source(tmp_path / "t.tsv", num_classes=1, folder=folder)
        np.testing.assert_array_equal(source.read(0, num_samples=None) * 32_768, arrays[name])
        assert not len(source.clips.labels(0))


@pytest.mark.parametrize(
    ("text", "line", "named"),
    [
        ("", 1, "'filename'"),
        ("filename,labels,hdf5path\n", 1, "'filename'"),
        ("filename\thdf5path\na\t0.h5\n", 1, "'labels'"),
        ("filename\tlabels\tduration\na\t0\t10\n", 1, "'hdf5path'"),
        (HEADER, None, "t.tsv"),
        (HEADER + "a\t0\t1\t0.h5\nb\t0\n", 3, "hdf5path"),
        (HEADER + "a\t0\t1\t\n", 2, "hdf5path"),
        (HEADER + "a\tDog\t1\t0.h5\n", 2, "labels='Dog'"),
        (HEADER + "a\t1\t1\t0.h5\nb\t3;12\t1\t0.h5\n", 3, "labels='3;12'"),
        (HEADER + "a\t-1\t1\t0.h5\n", 2, "labels='-1'"),
        (HEADER + "a\t0\t1\t0.h5\nb\t0\t1\t0.h5\na\t0\t1\t1.h5\n", None, "a 2 times"),
        (HEADER + "a\t0\t1\tlost.h5\n", None, "lost.h5"),
    ],
)
def test_errors_name_file_line_and_value(folder, tmp_path, text, line, named):
    table = tmp_path / "t.tsv"
    table.write_text(text)
    with pytest.raises(SatError, match=re.escape(named)) as caught:
        Hdf5Source(table, num_classes=12, folder=folder)
    message = str(caught.value)
    assert message.startswith(f"{table}, line {line}: " if line else f"{table}: ")
    assert "\n" not in message


def test_tables_that_cannot_be_read(tmp_path):
    with pytest.raises(SatError, match=re.escape(str(tmp_path / "no.tsv"))):
        Hdf5Source(tmp_path / "no.tsv", num_classes=1)
    (tmp_path / "t.tsv").write_bytes("filename\tÄ".encode("latin-1"))
    with pytest.raises(SatError, match="UTF-8"):
        Hdf5Source(tmp_path / "t.tsv", num_classes=1)


def test_clips_that_cannot_be_read_are_named(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["floats"] = np.zeros(10, np.float32)
        file["stereo"] = np.zeros((10, 2), np.int16)
        file["empty"] = np.zeros(0, np.int16)
        file.create_group("group")
    (tmp_path / "b.h5").write_bytes(b"no HDF5 at all")
    rows = ["floats\t\ta.h5", "stereo\t\ta.h5", "empty\t\ta.h5", "group\t\ta.h5", "lost\t\ta.h5"]
    table = tmp_path / "t.tsv"
    table.write_text("\n".join(["filename\tlabels\thdf5path", *rows, "clip\t\tb.h5"]))
    source = Hdf5Source(table, num_classes=1)
    values = ["float32", r"\[10, 2\]", "", "", "", ""]
    for index, value in enumerate(values):
        name = source.clips.ids[index]
        with pytest.raises(SatError, match=rf"\.h5, {name}: .*{value}") as caught:
            source.read(index, num_samples=None)
        assert "\n" not in str(caught.value)
