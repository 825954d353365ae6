"""TFDS datasets read in any order: against TFDS's own reading, in Python and by tf.data."""

import io
import itertools
import os
import re
import shutil
from typing import ClassVar

import numpy as np
import pytest
import soxr

from data_pipeline.batches.windows import Plan, Planner, WindowConfig
from data_pipeline.sources.source import make_table
from sat_jax.errors import SatError

tf = pytest.importorskip("tensorflow")
tfds = pytest.importorskip("tensorflow_datasets")

from data_pipeline.batches.reader import fill_window, window_batches  # noqa: E402
from data_pipeline.sources.tfds import index as tfds_index  # noqa: E402
from data_pipeline.sources.tfds import records  # noqa: E402
from data_pipeline.sources.tfds.reader import read_windows  # noqa: E402
from data_pipeline.sources.tfds.source import TfdsSource  # noqa: E402

RATE = 16_000
F = tfds.features
LENGTHS = [4000, 1601, 1600, 1599, 700, 1, 2500, 3333, 1234, 9999]


class _Builder(tfds.dataset_builders.AdhocBuilder, skip_registration=True):
    # Nothing is downloaded; TFDS would look for checksums, by a package it does not depend on.
    url_infos: ClassVar[dict] = {}


def sounds(dtype=np.int16, channels=()):
    rng = np.random.default_rng(1)
    return [rng.integers(-32_768, 32_768, (n, *channels)).astype(dtype) for n in LENGTHS]


def store(data_dir, name, audio_feature, encode, label_feature, label_of, **extra):
    """A dataset of ten clips in splits train, of two files, and test."""
    features = {"audio": audio_feature, **label_feature, **{k: F.Text() for k in extra}}
    key = next(iter(label_feature))
    rows = [
        {"audio": encode(sound), key: label_of(i), **{k: f(i) for k, f in extra.items()}}
        for i, sound in enumerate(sounds(audio_feature.np_dtype, audio_feature.shape[1:]))
    ]
    builder = _Builder(
        name=name,
        version="1.0.0",
        data_dir=data_dir,
        split_datasets={"train": enumerate(rows[:7]), "test": enumerate(rows[7:])},
        features=F.FeaturesDict(features),
    )
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(num_shards=2))
    return name


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    plain = F.Audio(shape=(None,), dtype=np.int64, sample_rate=RATE)
    raw = F.Audio(shape=(None,), dtype=np.int16, sample_rate=RATE, encoding="bytes")
    stereo = F.Audio(shape=(None, 2), dtype=np.int16, sample_rate=RATE)
    floats = F.Tensor(shape=(None,), dtype=np.float32)
    slow = F.Audio(shape=(None,), dtype=np.int64, sample_rate=8000)
    one = {"label": F.ClassLabel(names=["a", "b", "c"])}
    many = {"labels": F.Sequence(F.ClassLabel(num_classes=9))}

    def as_bytes(sound):
        return np.array(sound.tobytes(), dtype=object)

    def same(sound):
        return sound

    store(folder, "raw", raw, as_bytes, many, lambda i: [i, i // 2][: i % 3], id=lambda i: f"é{i}")
    store(folder, "plain", plain, same, one, lambda i: i % 3)
    store(folder, "stereo", stereo, same, one, lambda i: i % 3)
    store(folder, "floats", floats, lambda sound: sound / 40_000, one, lambda i: i % 3)
    store(folder, "slow", slow, same, one, lambda i: i % 3)
    store(folder, "twins", plain, same, one, lambda i: i % 3, id=lambda i: "twin")
    return folder


def open_source(data_dir, name, split="train", **kwargs):
    if name == "floats":
        kwargs = {"audio": "audio", "sample_rate": RATE, **kwargs}
    return TfdsSource(name, split, data_dir, **kwargs)


def by_tfds(data_dir, name, split="train"):
    """The same dataset as TFDS reads it: ids, labels and samples."""
    builder = tfds.builder_from_directory(data_dir / name / "1.0.0")
    config = tfds.ReadConfig(add_tfds_id=True)
    rows = list(tfds.as_numpy(builder.as_dataset(split=split, read_config=config)))
    ids = [row["id" if "id" in row else "tfds_id"].decode() for row in rows]
    labels = [np.unique(row["labels" if "labels" in row else "label"]).tolist() for row in rows]
    return ids, labels, [row["audio"] for row in rows]


def as_floats(sound):
    if sound.dtype == np.float32:
        return sound
    scaled = sound.astype(np.float32) / 32_768
    return scaled if scaled.ndim == 1 else scaled.mean(axis=1)


@pytest.mark.parametrize("name", ["raw", "plain", "stereo", "floats"])
@pytest.mark.parametrize("split", ["train", "test[:2]+train[50%:]"])
def test_clips_are_those_that_tfds_reads(data_dir, name, split):
    source = open_source(data_dir, name, split)
    ids, labels, audio = by_tfds(data_dir, name, split)
    assert list(source.clips.ids) == ids
    assert source.clips.fingerprint() == make_table(ids, labels).fingerprint()
    for index, sound in enumerate(audio):
        whole = source.read(index)
        assert source.path_of(index).startswith(os.path.join(data_dir, name))
        assert os.path.isfile(source.path_of(index))
        assert whole.dtype == np.float32
        np.testing.assert_array_equal(whole, as_floats(sound))
        for place, start in [(0.0, None), (0.37, None), (0.999, None), (0.5, 0.0)]:
            first = int(place * max(1, len(sound) - 800 + 1)) if start is None else 0
            window = source.read(index, num_samples=800, place=place, start=start)
            np.testing.assert_array_equal(window, whole[first : first + 800])


def test_classes_are_found_by_their_names(data_dir):
    for name, label_names in (("plain", ["c", "x", "a", "b"]), ("raw", list("876543210"))):
        before, after = (open_source(data_dir, name) for _ in range(2))
        after.use_classes(label_names)
        names = before.label_names
        assert len(after.clips.ids) == 7
        for i in range(7):
            theirs = {names[label] for label in before.clips.labels(i)}
            ours = after.clips.labels(i)
            assert {label_names[label] for label in ours} == theirs
            assert np.all(np.diff(ours) > 0)


def test_classes_without_names_keep_their_numbers(data_dir):
    before, after = (open_source(data_dir, "raw") for _ in range(2))
    after.label_names = None
    after.use_classes([f"class {i}" for i in range(9)])
    assert after.clips.fingerprint() == before.clips.fingerprint()


def test_a_class_that_the_model_lacks_is_refused(data_dir):
    with pytest.raises(SatError, match="has a class 'b', which the model lacks: choose a model"):
        open_source(data_dir, "plain").use_classes(["a", "c"])
    with pytest.raises(SatError, match="has a class '5', which"):
        open_source(data_dir, "raw").use_classes([str(i) for i in range(5)])


def test_another_rate_is_resampled_in_python_and_refused_by_tf_data(data_dir):
    source = open_source(data_dir, "slow")
    _, _, audio = by_tfds(data_dir, "slow")
    for index, sound in enumerate(audio):
        expected = soxr.resample(as_floats(sound), 8000, RATE, quality="HQ")
        np.testing.assert_allclose(source.read(index), expected, atol=1e-6)
    with pytest.raises(SatError, match="slow:train has 8000 samples a second"):
        next(read_windows(source, make_plan, 0, num_samples=10, fill="wrap"))


def make_plan(step, *, clips=7, rows=6):
    rng = np.random.default_rng(step)
    start = np.where(rng.random(rows) < 0.7, np.nan, 0.0).astype(np.float32)
    clip = rng.integers(0, clips, rows)
    return Plan(clip, rng.random(rows, np.float32), start, np.full((rows, 1), step, np.float32))


def windows_in_python(source, plan, num_samples, fill):
    rows = zip(plan.clip.tolist(), plan.place.tolist(), plan.start.tolist(), strict=True)
    return np.stack(
        [
            fill_window(
                source.read(
                    clip,
                    num_samples=num_samples,
                    place=place,
                    start=None if np.isnan(start) else start,
                ),
                num_samples,
                fill,
            )
            for clip, place, start in rows
        ]
    )


@pytest.mark.parametrize("fill", ["wrap", "zeros"])
@pytest.mark.parametrize("name", ["raw", "raw as records", "plain", "stereo", "floats"])
def test_tf_data_reads_what_python_reads(data_dir, name, fill):
    source = open_source(data_dir, name.split()[0])
    windows = read_windows(
        source,
        make_plan,
        5,
        num_samples=1600,
        fill=fill,
        workers=3,
        map_files=name != "raw as records",
    )
    for step, (plan, batch) in enumerate(itertools.islice(windows, 6), 5):
        assert (plan.target == step).all()
        assert batch.shape == (6, 1600) and batch.dtype == np.float32
        np.testing.assert_array_equal(batch, windows_in_python(source, plan, 1600, fill))
    windows.close()


@pytest.mark.parametrize("name", ["raw", "slow"])
def test_batches_are_made_of_datasets_at_any_rate(data_dir, name):
    source = open_source(data_dir, name)
    config = WindowConfig(batch_size=4, window_seconds=0.16, num_classes=9)
    planner = Planner(source.clips, config)
    batches = window_batches(source, planner, config)(3)
    for step, batch in zip(range(3, 6), batches, strict=False):
        plan = planner(step)
        expected = windows_in_python(source, plan, 2560, "wrap")
        np.testing.assert_array_equal(batch["waveform"], expected)
        np.testing.assert_array_equal(batch["target"], plan.target)
        assert batch["clips"] == [source.clips.ids[clip] for clip in plan.clip]
    batches.close()


def test_a_failing_plan_is_told_behind_the_batches_before_it(data_dir):
    source = open_source(data_dir, "raw")
    late = np.full(6, 99.0, np.float32)

    def plans(step):
        plan = make_plan(step)
        return plan._replace(start=late) if step == 3 else plan

    windows = read_windows(source, plans, 1, num_samples=100, fill="zeros", workers=2)
    assert [float(plan.target[0, 0]) for plan, _ in itertools.islice(windows, 2)] == [1.0, 2.0]
    with pytest.raises(SatError, match=r"raw:train, é\d: has nothing at 99 s"):
        next(windows)


def test_the_pass_over_the_files_is_made_once(data_dir, monkeypatch):
    first = open_source(data_dir, "raw")

    def fail(*args):
        raise AssertionError("the files are read again")

    monkeypatch.setattr(tfds_index, "_rows", fail)
    again = open_source(data_dir, "raw")
    assert again.clips.fingerprint() == first.clips.fingerprint()
    for ours, theirs in zip(again.records, first.records, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    with pytest.raises(AssertionError):
        open_source(data_dir, "raw", "train[:3]")
    with pytest.raises(AssertionError):
        open_source(data_dir, "twins", ids="label")


def test_files_of_the_same_size_that_were_written_anew_are_read_anew(tmp_path):
    def prepare(label):
        return store(
            tmp_path, "anew", F.Audio(sample_rate=RATE), lambda s: s, LABEL, lambda i: label
        )

    name = prepare(0)
    assert set(open_source(tmp_path, name).clips.label_indices.tolist()) == {0}
    folder = tmp_path / name / "1.0.0"
    kept = [(path, path.read_bytes()) for path in folder.glob("clips_*.npz")]
    assert kept
    sizes = {path.name: path.stat().st_size for path in folder.glob("*tfrecord*")}
    shutil.rmtree(folder)
    prepare(1)
    for path, content in kept:
        path.write_bytes(content)
    assert {path.name: path.stat().st_size for path in folder.glob("*tfrecord*")} == sizes
    for path in folder.glob("*tfrecord*"):
        os.utime(path, (0, 0))
    assert set(open_source(tmp_path, name).clips.label_indices.tolist()) == {1}


LABEL = {"label": F.ClassLabel(num_classes=2)}


def test_a_dataset_that_is_read_only_is_kept_in_the_cache_folder(tmp_path, monkeypatch):
    name = store(tmp_path, "kept", F.Audio(sample_rate=RATE), lambda s: s, LABEL, lambda i: 0)
    before = sorted(os.listdir(tmp_path / name / "1.0.0"))
    folders = tfds_index._folders
    # Permissions mean nothing to root, but nobody can write below a file.
    below = tmp_path / name / "1.0.0" / "dataset_info.json" / "no"
    monkeypatch.setattr(tfds_index, "_folders", lambda folder: [below, *folders(folder)[1:]])
    open_source(tmp_path, name)
    assert sorted(os.listdir(tmp_path / name / "1.0.0")) == before
    monkeypatch.setattr(tfds_index, "_rows", None)
    assert len(open_source(tmp_path, name).clips.ids) == 7


def test_files_that_changed_are_looked_at_again(tmp_path):
    name = store(tmp_path, "cut", F.Audio(sample_rate=RATE), lambda s: s, LABEL, lambda i: 0)
    source = open_source(tmp_path, name)
    path = source.records.files[0]
    size = os.path.getsize(path)
    os.truncate(path, size - 3)
    with pytest.raises(SatError, match=f"{re.escape(path)} is damaged: it ends inside the record"):
        open_source(tmp_path, name)
    last = np.flatnonzero(source.records.file_of_clip == 0)[-1]
    os.truncate(path, size - 8)
    with pytest.raises(SatError, match=f"{re.escape(path)}: ends before clip"):
        source.read(int(last))
    os.remove(path)
    with pytest.raises(SatError, match=f"{re.escape(path)} is missing from its dataset"):
        open_source(tmp_path, name)


def test_damage_that_tf_data_finds_is_told_in_one_line(tmp_path):
    name = store(tmp_path, "bad", F.Audio(sample_rate=RATE), lambda s: s, LABEL, lambda i: 0)
    source = open_source(tmp_path, name)
    for path in source.records.files:
        with open(path, "r+b") as file:
            file.seek(-6, os.SEEK_END)
            file.write(b"\xff\x00")
    plan = make_plan(0)._replace(clip=np.arange(6))
    with pytest.raises(SatError, match=r"bad:train can't be read: .*corrupted record") as error:
        list(
            itertools.islice(read_windows(source, lambda _: plan, 0, num_samples=9, fill="wrap"), 3)
        )
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "split", "options", "message"),
    [
        ("nothing", "train", {}, "TFDS cannot open 'nothing'"),
        ("plain:9.9.9", "train", {}, "of it lie): "),
        ("plain", "eval", {}, "has no split 'eval', but "),
        ("plain", "train[:0]", {}, "plain:train[:0] has no clips: choose another split"),
        ("plain", "train", {"audio": "label"}, "no samples in a feature 'label'"),
        ("plain", "train", {"labels": "audio"}, "no class or list of classes in a feature 'audio'"),
        ("plain", "train", {"labels": "gone"}, "no class or list of classes in a feature 'gone'"),
        ("floats", "train", {"audio": None}, "0 audio features among"),
        ("floats", "train", {"sample_rate": None}, "does not tell the rate"),
        ("twins", "train", {}, "7 clips are called 'twin'"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line(data_dir, name, split, options, message):
    with pytest.raises(SatError, match=re.escape(message)) as error:
        open_source(data_dir, name, split, **options)
    assert "\n" not in str(error.value)


@pytest.fixture
def shard(tmp_path):
    """A file of examples of all kinds, and these."""
    rng = np.random.default_rng(2)
    path, written = str(tmp_path / "examples.tfrecord"), []
    with tf.io.TFRecordWriter(path) as writer:
        for size in (0, 1, 127, 128, 70_000):
            features = {
                "bytes": bytes_feature([rng.bytes(size)]),
                "two": bytes_feature([b"a", b"b"]),
                "none": bytes_feature([]),
                "é": tf.train.Feature(int64_list=tf.train.Int64List(value=[1, -1, size])),
                "empty": tf.train.Feature(),
            }
            example = tf.train.Example(features=tf.train.Features(feature=features))
            written.append(example)
            writer.write(example.SerializeToString())
    return path, written


def bytes_feature(values):
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))


def test_records_and_their_parts_are_where_they_are_said_to_be(shard):
    path, written = shard
    with open(path, "rb") as file:
        spans = list(records.record_spans(file, os.path.getsize(path)))
        data = file.seek(0) or file.read()
        assert len(spans) == len(written)
        for span, example in zip(spans, written, strict=True):
            assert tf.train.Example.FromString(data[slice(*span)]) == example
            entries = records.feature_spans(file, span)
            assert entries.keys() == example.features.feature.keys()
            value = records.bytes_span(file, entries["bytes"])
            expected = example.features.feature["bytes"].bytes_list.value[0]
            assert data[slice(*value)] == expected
            assert all(
                records.bytes_span(file, entries[k]) is None for k in ("two", "none", "empty")
            )
            part = tf.train.Example.FromString(
                records.example_of(file, [entries["é"], entries["two"]])
            )
            assert part.features.feature.keys() == {"é", "two"}
            for name, feature in part.features.feature.items():
                assert feature == example.features.feature[name]


def test_what_is_no_example_is_refused():
    file = io.BytesIO(bytes(range(3, 60)))
    with pytest.raises(records.BadRecord, match=r"no tf\.train\.Example"):
        records.feature_spans(file, records.Span(0, 57))
    with pytest.raises(records.BadRecord, match="inside the record at byte 0"):
        list(records.record_spans(io.BytesIO(b"\xff" * 40), 40))
