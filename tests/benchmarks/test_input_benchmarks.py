"""The benchmarks of the input pipeline run and report; their numbers are not tested."""

import json

import pytest

from benchmarks import measuring

pytest.importorskip("tensorflow")


@pytest.fixture(autouse=True)
def _short_blocks(monkeypatch):
    monkeypatch.setattr(measuring, "BLOCK", 0.01)
    monkeypatch.setattr(measuring, "PAUSE", 0.0)


def test_audio_storage(tmp_path, capsys):
    from benchmarks import audio_storage

    file = tmp_path / "storage.json"
    flags = ["--seconds", "0.5", "--window", "0.2", "--rounds", "2", "--json", str(file)]
    audio_storage.main(flags)
    sizes = {
        name: row["kb_per_second"] for name, row in json.loads(file.read_text())["storages"].items()
    }
    assert sizes["FLAC"] < sizes["16-bit samples as bytes"] < 33
    assert "| FLAC |" in capsys.readouterr().out


@pytest.mark.slow
def test_input_pipeline(tmp_path, capsys):
    pytest.importorskip("tensorflow_datasets")
    from benchmarks import input_pipeline

    file = tmp_path / "input.json"
    flags = ["--workers", "1", "--clips", "9", "--seconds", "1", "--window", "0.5", "--batch", "4"]
    input_pipeline.main([*flags, "--rounds", "2", "--block", "2", "--json", str(file)])
    (row,) = json.loads(file.read_text())["readers"]
    assert row["workers"] == 1 and row["ratio"]["median"] > 0
    assert "| 1 |" in capsys.readouterr().out


@pytest.mark.slow
def test_remote_reading(tmp_path, capsys):
    pytest.importorskip("tensorflow_datasets")
    from benchmarks import remote_reading

    file = tmp_path / "remote.json"
    flags = ["--delays", "1", "--workers", "2", "--clips", "12", "--copies", "2", "--batch", "4"]
    flags += ["--buffer_mb", "4", "--rounds", "1", "--seconds", "0.1", "--json", str(file)]
    remote_reading.main(flags)
    rows = json.loads(file.read_text())["readers"]
    assert [row["order"] for row in rows] == ["random", "shards"]
    assert all(row["windows_per_s"] > 0 for row in rows)
    assert "| shards |" in capsys.readouterr().out


def test_shard_balance(capsys):
    from benchmarks import shard_balance

    flags = ["--clips", "4096", "--memory_gb", "1", "--processes", "1,2", "--batch", "64"]
    shard_balance.main(flags)
    cells = [line.split("|")[1:-1] for line in capsys.readouterr().out.splitlines()[2:]]
    at_random, one, two = ([float(cell.strip(" %")) for cell in row[3:]] for row in cells)
    # Rounded shares are nearer than draws; the published bound is in the docs.
    assert max(one[2], two[2]) < at_random[2] < 0.2
