"""The command that builds the dataset checks its output before it downloads packages."""

import pytest

from projects.box_model.scenes.__main__ import PROGRAM
from projects.box_model.tests.scenes.made_up import build_dataset
from tests.support.programs import run_program

pytest.importorskip("tensorflow_datasets")

COUNTS = {"train": 8, "solo": 8, "validation": 4, "test": 12}


@pytest.fixture(scope="module")
def tfds_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    build_dataset(folder, COUNTS)
    return folder


def run(tmp_path, data_dir, *flags):
    counts = [f"--num_{split}={count}" for split, count in COUNTS.items()]
    where = (f"--packages={tmp_path / 'packages'}", f"--data_dir={data_dir}")
    return run_program(PROGRAM, "scenes", *where, *counts, *flags)


def test_an_existing_dataset_is_kept(tfds_dir, tmp_path, capsys):
    assert run(tmp_path, tfds_dir) == 0
    [line] = capsys.readouterr().out.splitlines()
    assert "8 scenes in train, 8 scenes in solo, 4 scenes in validation, 12 scenes in test" in line
    assert not (tmp_path / "packages").exists()


def test_a_dataset_with_other_counts_is_refused(tfds_dir, tmp_path, capsys):
    assert run(tmp_path, tfds_dir, "--num_test=7") == 1
    [line] = capsys.readouterr().err.splitlines()
    assert str(tfds_dir) in line and "12 scenes in test" in line


def test_an_unusable_folder_is_named(tmp_path, capsys):
    (tmp_path / "file").touch()
    assert run(tmp_path, tmp_path / "file") == 1
    [line] = capsys.readouterr().err.splitlines()
    assert str(tmp_path / "file") in line
    assert not (tmp_path / "packages").exists()
