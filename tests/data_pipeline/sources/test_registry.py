"""Sources of clips, chosen by flags."""

import os
import shutil
import sys
import types

import h5py
import numpy as np
import pytest
import soundfile
from absl import flags

from data_pipeline.sources.registry import define_source_flags, open_source, resolved, source_flags
from data_pipeline.sources.tables import UnknownClassError
from sat_jax.errors import SatError

LABELS = tuple("abcdefghijkl")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three recordings with a table of each kind."""
    folder, rng = tmp_path_factory.mktemp("clips"), np.random.default_rng(0)
    names = [f"{index}.wav" for index in range(3)]
    with h5py.File(folder / "clips.h5", "w") as file:
        for name in names:
            file[name] = rng.integers(-999, 999, 16_000, np.int16)
            soundfile.write(folder / name, file[name][:], 16_000)
    (folder / "clips.csv").write_text("\n".join(["file,labels", *(f"{row}," for row in names)]))
    lines = ["filename\tlabels\tduration\thdf5path", *(f"{row}\t\t1\tclips.h5" for row in names)]
    (folder / "clips.tsv").write_text("\n".join(lines))
    return folder


def test_sources_by_name(folder):
    for options in ({"clips": str(folder / "clips.csv")}, {"hdf5_tsv": str(folder / "clips.tsv")}):
        source = open_source(LABELS, **options)
        assert list(source.clips.ids) == ["0.wav", "1.wav", "2.wav"]
        moved = open_source(LABELS, **options, folder=str(folder))
        assert moved.clips.fingerprint() == source.clips.fingerprint()


def test_missing_files_may_be_left_out(folder, tmp_path):
    shutil.copy(folder / "2.wav", tmp_path)
    options = {"clips": str(folder / "clips.csv"), "folder": str(tmp_path)}
    assert len(open_source(LABELS, **options).clips.ids) == 3
    assert open_source(LABELS, **options, leave_out_missing=True).clips.ids == ["2.wav"]


@pytest.mark.parametrize(
    ("text", "name", "split"),
    [
        ("audioset:train", "audioset", "train"),
        ("audioset/full:1.0.0:train[:10%]", "audioset/full:1.0.0", "train[:10%]"),
        ("audioset:1.*.*:test", "audioset:1.*.*", "test"),
        ("audioset:train[5:10]+test", "audioset", "train[5:10]+test"),
    ],
)
def test_names_of_tensorflow_datasets(monkeypatch, text, name, split):
    class Source:
        def __init__(self, *arguments, **features):
            self.arguments, self.features, self.classes = arguments, features, None

        def use_classes(self, names):
            self.classes = names

    module = types.SimpleNamespace(TfdsSource=Source)
    monkeypatch.setitem(sys.modules, "data_pipeline.sources.tfds.source", module)
    opened = open_source(LABELS, tfds=text, data_dir="dir")
    assert opened.arguments == (name, split, "dir")
    assert opened.features == {"audio": None, "labels": None}
    assert opened.classes == LABELS
    assert open_source((), tfds=text).classes is None
    named = open_source((), tfds=text, columns="sound,what")
    assert named.features == {"audio": "sound", "labels": "what"}


def test_labels_are_ignored_without_class_names(folder, tmp_path):
    (tmp_path / "a.csv").write_text("file\n0.wav\n1.wav\n")
    (tmp_path / "b.csv").write_text("file,labels\n0.wav,No such class\n1.wav,9999\n")
    (tmp_path / "c.tsv").write_text(
        "filename\tlabels\thdf5path\n0.wav\tNo such class\tclips.h5\n1.wav\t9999\tclips.h5\n"
    )
    for options in ({"clips": "a.csv"}, {"clips": "b.csv"}, {"hdf5_tsv": "c.tsv"}):
        paths = {name: str(tmp_path / file) for name, file in options.items()}
        clips = open_source((), **paths, folder=str(folder)).clips
        assert list(clips.ids) == ["0.wav", "1.wav"] and not len(clips.label_indices)


def test_flags_of_two_sources():
    values = flags.FlagValues()
    define_source_flags(values)
    define_source_flags(values, "valid_")
    values(["program", "--clips=a.csv", "--folder=b"])
    assert source_flags(values, "valid_") is None
    assert {name: value for name, value in source_flags(values).items() if value} == {
        "clips": "a.csv",
        "folder": "b",
    }
    values(["program", "--valid_tfds=a:b", "--valid_data_dir=d", "--where=x=1"])
    assert source_flags(values, "valid_")["tfds"] == "a:b"
    assert source_flags(values)["where"] == "x=1"
    values(["program", "--valid_hdf5_tsv=a.tsv"])
    with pytest.raises(flags.Error, match=r"--valid_hdf5_tsv and --valid_tfds"):
        source_flags(values, "valid_")


def test_addresses_are_no_relative_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    values = {"tfds": "a:b", "data_dir": "gs://bucket/tfds", "folder": "clips", "clips": None}
    assert resolved(values) == values | {"folder": os.path.realpath("clips")}


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--folder=a"], ["--folder", "--clips", "--hdf5_tsv", "--tfds"]),
        (["--tfds=a:b", "--where=x=1"], ["--where", "--tfds", "--clips"]),
        (["--tfds=a"], ["--tfds=a"]),
        (["--clips=a", "--columns=b"], ["--columns=b"]),
    ],
)
def test_flags_that_do_not_fit(arguments, named):
    values = flags.FlagValues()
    define_source_flags(values)
    values(["program", *arguments])
    with pytest.raises(flags.Error) as raised:
        source_flags(values)
    assert all(name in str(raised.value) for name in named)


def test_unknown_and_missing_sources():
    with pytest.raises(TypeError, match="clip"):
        open_source(LABELS, clip="a.csv")
    with pytest.raises(SatError, match="hdf5_tsv"):
        open_source(LABELS, folder="a")


@pytest.mark.parametrize(
    "options",
    [
        {"clips": "clips.csv"},
        {"hdf5_tsv": "clips.tsv"},
        {"tfds": "no_such_set:train", "columns": None},
    ],
    ids=lambda options: next(iter(options)),
)
def test_errors_name_flags_with_their_prefix(folder, tmp_path, options):
    if "tfds" in options:
        pytest.importorskip("tensorflow_datasets")
        options, flag = options | {"data_dir": str(tmp_path)}, "data_dir"
    else:
        options, flag = {name: str(folder / path) for name, path in options.items()}, "folder"
        options["folder"] = str(tmp_path)
    with pytest.raises(SatError, match=rf" --{flag}\b"):
        open_source(LABELS, **options)
    with pytest.raises(SatError, match=rf" --valid_{flag}\b"):
        open_source(LABELS, **options, prefix="valid_")


def test_an_unknown_class_stays_one_with_a_prefix(folder):
    (folder / "clips.csv").write_text("file,labels\n0.wav,Dragon\n")
    with pytest.raises(UnknownClassError, match="Dragon"):
        open_source(LABELS, clips=str(folder / "clips.csv"), prefix="valid_")


def test_a_missing_library_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    monkeypatch.delitem(sys.modules, "data_pipeline.sources.hdf5")
    with pytest.raises(SatError, match="h5py"):
        open_source(LABELS, hdf5_tsv="clips.tsv")
