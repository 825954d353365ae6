"""AudioSet as a TFDS dataset: its clips, the skipped ones, and the same bytes from each way."""

import csv
import inspect
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from sat_jax.errors import SatError
from sat_jax.labels import audioset_labels

pytest.importorskip("tensorflow")
tfds = pytest.importorskip("tensorflow_datasets")

from data_pipeline.audioset.builder import AudioSet  # noqa: E402
from data_pipeline.audioset.prepare import prepare_audioset, summary  # noqa: E402
from data_pipeline.audioset.reading import read_samples  # noqa: E402

RATE = 16_000
MIDS = [label.mid for label in audioset_labels()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Makes good and broken clips, and their tables."""
    base = tmp_path_factory.mktemp("audioset")
    audio = base / "audio"
    audio.mkdir()
    rng = np.random.default_rng(0)

    def write(name, seconds, rate=RATE, channels=1, **kwargs):
        sound = rng.uniform(-1, 1, (int(seconds * rate), channels))
        soundfile.write(audio / name, sound, rate, **kwargs)

    write("good0000000_0.000_10.000.wav", 1.0)
    write("good0000001_1_11.flac", 0.6)
    write("stereo00002.ogg", 0.7, rate=44_100, channels=2)
    write("Ylong000003.wav", 2.5)
    write("short000004_4_14.wav", 0.09)
    write("cut00000006_6_16.wav", 1.0)
    whole = (audio / "cut00000006_6_16.wav").read_bytes()
    (audio / "cut00000006_6_16.wav").write_bytes(whole[: len(whole) // 2])
    (audio / "empty000005_5_15.wav").touch()
    (audio / "noise000007_7_17.wav").write_bytes(b"<html>404</html>" * 50)
    names = ["good0000000", "good0000001", "stereo00002", "Ylong000003", "short000004"]
    names += ["empty000005", "cut00000006", "noise000007", "missing0008", "good0000000"]
    rows = [
        f'{name.removeprefix("Y")}, {i % 9}.000, {i % 9 + 10}.000, "{MIDS[i]},{MIDS[500 + i]}"\n'
        for i, name in enumerate(names)
    ]
    head = "# one\n# two\n# three\n"
    (base / "balanced_train_segments.csv").write_text(head + "".join(rows))
    (base / "eval_segments.csv").write_text(head + "".join(rows[:2]))
    return base


@pytest.fixture(scope="module")
def tables(folder):
    return {
        "balanced": str(folder / "balanced_train_segments.csv"),
        "eval": str(folder / "eval_segments.csv"),
    }


@pytest.fixture(scope="module")
def built(folder, tables, tmp_path_factory):
    data_dir = tmp_path_factory.mktemp("tfds")
    return prepare_audioset(
        audio=str(folder / "audio"), tables=tables, data_dir=str(data_dir), progress=False
    )


def examples(builder, split):
    loaded = tfds.builder_from_directory(builder.data_dir)  # Does not use our builder.
    data = loaded.as_dataset(split=split)
    return {row["id"].decode(): row for row in tfds.as_numpy(data)}


def contents(builder):
    return {path.name: path.read_bytes() for path in builder.data_path.iterdir()}


def test_good_clips_are_kept_to_the_bit(built, folder):
    found = examples(built, "balanced")
    assert sorted(found) == [
        "good0000000_0.000_10.000",
        "good0000001_1.000_11.000",
        "long000003_3.000_13.000",
        "stereo00002_2.000_12.000",
    ]
    files = ["good0000000_0.000_10.000.wav", "good0000001_1_11.flac", "Ylong000003.wav"]
    for row, file in zip([found[name] for name in sorted(found)], files, strict=False):
        sound, _ = soundfile.read(folder / "audio" / file, dtype="int16")
        assert row["audio"].dtype == np.int16
        np.testing.assert_array_equal(row["audio"], sound)
        assert row["seconds"] == np.float32(len(sound) / RATE)
    stereo = found["stereo00002_2.000_12.000"]
    assert len(stereo["audio"]) == pytest.approx(0.7 * RATE, abs=1)
    assert stereo["labels"].tolist() == [2, 502]
    assert sorted(examples(built, "eval")) == sorted(found)[:2]


def test_broken_clips_are_listed_with_reasons_and_counted(built):
    path = built.data_path / "skipped_balanced.csv"
    with open(path, newline="") as file:
        reasons = {row["id"][:11]: row["reason"] for row in csv.DictReader(file)}
    named = {
        "short000004": "0.090 s",
        "empty000005": "empty",
        "cut00000006": "truncated",
        "noise000007": "",
        "missing0008": "missing",
        "good0000000": "duplicate",
    }
    assert reasons.keys() == named.keys()
    assert all(text in reasons[name] for name, text in named.items())
    assert not any(str(built.data_path) in reason for reason in reasons.values())
    balanced, evaluation = summary(built)
    assert balanced.startswith("balanced: 4 clips, 6 skipped (1 ")
    assert balanced.endswith(f"; see {path})")
    assert evaluation == "eval: 2 clips, 0 skipped"


@pytest.mark.slow
def test_the_command_builds_the_same_bytes_in_another_process(built, folder, tables, tmp_path):
    command = [sys.executable, "-m", "data_pipeline.audioset", f"--audio={folder / 'audio'}"]
    command += [f"--{split}_csv={path}" for split, path in tables.items()]
    command += [f"--data_dir={tmp_path}", "--workers=1"]
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    other = tfds.builder_from_directory(tmp_path / "audioset" / "1.0.0")
    assert contents(other) == contents(built)
    assert done.stdout.count("\n") == 2 and "balanced: 4 clips" in done.stdout


def test_beam_builds_the_same(built, folder, tables, tmp_path):
    pytest.importorskip("apache_beam")
    other = prepare_audioset(
        audio=str(folder / "audio"),
        tables=tables,
        data_dir=str(tmp_path),
        beam_options="runner=DirectRunner",
    )
    assert contents(other) == contents(built)
    assert summary(other)[1] == summary(built)[1]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ("runer=DirectRunner", "=runer=DirectRunner"),
        ("runner=DirectRunner,direct_num_workers=x", "direct_num_workers: .*'x'"),
    ],
)
def test_wrong_beam_options_are_refused(folder, tables, tmp_path, options, named):
    pytest.importorskip("apache_beam")
    audio = str(folder / "audio")
    with pytest.raises(SatError, match=named) as error:
        prepare_audioset(audio=audio, tables=tables, data_dir=str(tmp_path), beam_options=options)
    assert "\n" not in str(error.value)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_a_broken_clip_whose_name_is_not_utf8_is_listed(tmp_path):
    audio = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    audio.mkdir()
    sound = np.random.default_rng(0).uniform(-1, 1, RATE)
    soundfile.write(os.fspath(tmp_path / "good.wav"), sound, RATE)
    (tmp_path / "good.wav").rename(audio / "good0000000_0_10.wav")
    (audio / "broken00001_0_10.wav").touch()
    table = tmp_path / "table.csv"
    rows = [f'{name}, 0, 10, "{MIDS[0]}"\n' for name in ("good0000000", "broken00001")]
    table.write_text("".join(rows))
    built = prepare_audioset(
        audio=str(audio), tables={"eval": str(table)}, data_dir=str(tmp_path), progress=False
    )
    assert summary(built)[0].startswith("eval: 1 clips, 1 skipped (1 ")
    [skipped] = built.data_path.glob("skipped_*.csv")
    assert "broken00001" in skipped.read_text()


def test_tfds_builds_the_same_from_its_manual_folder(built, folder, tmp_path):
    builder = AudioSet(data_dir=tmp_path)
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=folder))
    assert contents(builder) == contents(built)


@pytest.mark.slow
def test_tfds_build_with_beam_builds_the_same(built, folder, tmp_path):
    for package in ("apache_beam", "mlcroissant"):
        pytest.importorskip(package)
    command = [str(Path(sys.executable).with_name("tfds")), "build", inspect.getfile(AudioSet)]
    command += ["--manual_dir", str(folder), "--data_dir", str(tmp_path)]
    command += ["--beam_pipeline_options", "runner=DirectRunner"]
    subprocess.run(command, check=True)
    found = contents(tfds.builder_from_directory(tmp_path / "audioset" / "1.0.0"))
    expected = contents(built)
    about = [json.loads(files.pop("dataset_info.json")) for files in (found, expected)]
    assert [info.pop("moduleName") for info in about] == ["audioset.builder", AudioSet.__module__]
    assert about[0] == about[1]
    assert found == expected


def test_the_given_runner_is_used(folder, tmp_path):
    pytest.importorskip("apache_beam")
    from apache_beam.options.pipeline_options import PipelineOptions

    for asked in (
        {"beam_options": PipelineOptions(["--runner=NoSuchRunner"])},
        {"beam_runner": "NoSuchRunner"},
    ):
        config = tfds.download.DownloadConfig(manual_dir=folder, **asked)
        with pytest.raises(ValueError, match="NoSuchRunner"):
            AudioSet(data_dir=tmp_path).download_and_prepare(download_config=config)


@pytest.mark.parametrize("beam_options", [None, "runner=DirectRunner"])
def test_a_split_without_clips_is_refused(folder, tmp_path, beam_options):
    table = tmp_path / "table.csv"
    table.write_text(f'empty000005, 5, 15, "{MIDS[0]}"\n')
    options = {"audio": str(folder / "audio"), "data_dir": str(tmp_path / "tfds")}
    with pytest.raises(SatError) as error:
        prepare_audioset(
            **options, tables={"eval": str(table)}, progress=False, beam_options=beam_options
        )
    assert "\n" not in str(error.value)
    if beam_options is None:
        assert "empty000005" in str(error.value)
    table.write_text(f'nowhere0005, 5, 15, "{MIDS[0]}"\n')
    with pytest.raises(SatError, match=r"audio has none .* nowhere0005_5\.000_15\.000"):
        prepare_audioset(**options, tables={"eval": str(table)}, progress=False)


def test_samples_are_rounded_and_stay_in_range(tmp_path):
    path = tmp_path / "float.wav"
    values = np.tile([1.5, -1.5, 0.6 / 32_768, -0.4 / 32_768], 500)
    soundfile.write(path, values, RATE, subtype="FLOAT")
    assert read_samples(path)[:4].tolist() == [32_767, -32_768, 1, 0]
