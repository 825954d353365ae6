"""Versions of clips change when their files do, and with no other clip's."""

import os
import shutil

import h5py
import numpy as np
import soundfile

from data_pipeline.sources.clips import read_clips
from data_pipeline.sources.folder import FolderSource
from data_pipeline.sources.hdf5 import Hdf5Source
from data_pipeline.sources.source import clip_versions


def write(path, value):
    soundfile.write(path, np.full(100, value), 16_000)


def test_versions_of_files_and_their_parts(tmp_path):
    for name in "abc":
        write(tmp_path / f"{name}.wav", 0.1)
    table = tmp_path / "table.csv"
    rows = ["a.wav,,", "b.wav,0,0.001", "b.wav,0.001,", "c.wav,,", "lost.wav,,"]
    table.write_text("\n".join(["file,start,end", *rows]) + "\n")

    def versions(folder=tmp_path):
        return clip_versions(FolderSource(read_clips(table, (), folder=folder)))

    first = versions()
    assert (first.dtype, len(first), len(set(first.tolist()))) == (np.int64, 5, 4)
    np.testing.assert_array_equal(versions(), first)
    time = os.stat(tmp_path / "b.wav").st_mtime_ns
    write(tmp_path / "b.wav", 0.2)  # As long as it was, and a nanosecond younger.
    os.utime(tmp_path / "b.wav", ns=(time, time + 1))
    assert (versions() != first).tolist() == [False, True, True, False, False]
    before = versions()
    (tmp_path / "c.wav").unlink()
    write(tmp_path / "lost.wav", 0.1)
    assert (versions() != before).tolist() == [False, False, False, True, True]
    shutil.copytree(tmp_path, tmp_path / "copy", copy_function=shutil.copy2)
    assert (versions(tmp_path / "copy") != versions()).all()


def test_versions_of_missing_files_differ_by_path(tmp_path):
    table = tmp_path / "table.csv"
    table.write_text("file\na.wav\nlost.wav\ngone.wav\n")
    write(tmp_path / "a.wav", 0.1)
    source = FolderSource(read_clips(table, ()))
    assert len(set(clip_versions(source).tolist())) == 3


def test_versions_of_hdf5_files(tmp_path, monkeypatch):
    rows = ["filename\tlabels\thdf5path"]
    for name in "xy":
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            for clip in range(2):
                file[f"{name}{clip}"] = np.zeros(10, np.int16)
                rows.append(f"{name}{clip}\t\t{name}.h5")
    (tmp_path / "t.tsv").write_text("\n".join(rows) + "\n")
    first = clip_versions(Hdf5Source(tmp_path / "t.tsv", num_classes=0))
    monkeypatch.chdir(tmp_path)  # The same files by another name.
    np.testing.assert_array_equal(clip_versions(Hdf5Source("t.tsv", num_classes=0)), first)
    os.utime("y.h5", ns=(1, 1))
    changed = clip_versions(Hdf5Source("t.tsv", num_classes=0)) != first
    assert changed.tolist() == [False, False, True, True]
