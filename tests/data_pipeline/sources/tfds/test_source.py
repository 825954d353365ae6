"""TFDS datasets read in any order, compared with TFDS's own reading."""

import io
import os
import re
import shutil
from typing import ClassVar

import numpy as np
import pytest
import soxr

from data_pipeline.batches.reader import window_batches
from data_pipeline.batches.windows import Planner, WindowConfig
from data_pipeline.sources.source import make_table
from data_pipeline.training_data import open_training_data
from sat_jax.errors import SatError

tf = pytest.importorskip("tensorflow")
tfds = pytest.importorskip("tensorflow_datasets")


from data_pipeline.sources.tfds import index as tfds_index  # noqa: E402
from data_pipeline.sources.tfds import records  # noqa: E402
from data_pipeline.sources.tfds.blocks import TfdsBlocks  # noqa: E402
from data_pipeline.sources.tfds.source import TfdsSource  # noqa: E402

RATE = 16_000
F = tfds.features
LENGTHS = [4000, 1601, 1600, 1599, 700, 1, 2500, 3333, 1234, 9999]


class _Builder(tfds.dataset_builders.AdhocBuilder, skip_registration=True):
    # Nothing is downloaded. TFDS would look for checksums, with a package it does not depend on.
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
def test_clips_are_the_same_as_by_tfds(data_dir, name, split):
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
        names = before.features.label_names
        assert len(after.clips.ids) == 7
        for i in range(7):
            theirs = {names[label] for label in before.clips.labels(i)}
            ours = after.clips.labels(i)
            assert {label_names[label] for label in ours} == theirs
            assert np.all(np.diff(ours) > 0)


def test_classes_without_names_keep_their_numbers(data_dir):
    before, after = (open_source(data_dir, "raw") for _ in range(2))
    after.features.label_names = None
    after.use_classes([f"class {i}" for i in range(9)])
    assert after.clips.fingerprint() == before.clips.fingerprint()


def test_a_class_that_the_model_lacks_is_refused(data_dir):
    with pytest.raises(SatError, match=r"plain:train.*'b'"):
        open_source(data_dir, "plain").use_classes(["a", "c"])
    with pytest.raises(SatError, match=r"raw:train.*'5'"):
        open_source(data_dir, "raw").use_classes([str(i) for i in range(5)])


def test_another_rate_is_resampled(data_dir):
    source = open_source(data_dir, "slow")
    _, _, audio = by_tfds(data_dir, "slow")
    for index, sound in enumerate(audio):
        expected = soxr.resample(as_floats(sound), 8000, RATE, quality="HQ")
        np.testing.assert_allclose(source.read(index), expected, atol=1e-6)


@pytest.mark.parametrize("max_bytes", [None, 1, 9000])
@pytest.mark.parametrize("name", ["raw", "plain", "stereo", "floats", "slow"])
def test_batches_by_tf_data_are_single_reads(data_dir, name, max_bytes):
    source = open_source(data_dir, name)
    config = WindowConfig(batch_size=8, window_seconds=0.16, num_classes=9)
    blocks = TfdsBlocks(source, max_bytes) if max_bytes else None
    planner = Planner(source.clips, config, blocks=blocks)
    batches = window_batches(source, planner, config, workers=3, tf_data=True)(2)
    for step, batch in zip(range(2, 5), batches, strict=False):
        for row, window in zip(batch["waveform"], planner(step).windows(), strict=True):
            samples = source.read(window.clip, num_samples=2560, place=window.place)
            np.testing.assert_array_equal(row, np.resize(samples, 2560))


def test_two_processes_train_on_all_clips_in_the_order_of_shards(data_dir):
    config = WindowConfig(
        batch_size=6, window_seconds=0.16, num_classes=3, read_order="shards", buffer_mb=1
    )
    fields = {"tfds": "plain:train[:6]", "data_dir": str(data_dir)}
    parts = []
    for index in range(2):
        data = open_training_data(config, "abc", fields, process_index=index, process_count=2)
        assert (data.epoch_size, data.record["processes"]) == (6, 2)
        batches = data.batches(0)
        parts.append([next(batches)["clips"] for _ in range(3)])
    for ours, theirs in zip(*parts, strict=True):
        assert sorted([*ours, *theirs]) == sorted(by_tfds(data_dir, "plain", "train[:6]")[0])


@pytest.mark.parametrize("name", ["raw", "plain"])
def test_remote_records_are_read_by_tensorflow(data_dir, name):
    source, remote = (open_source(data_dir, name) for _ in range(2))
    paths = [f"ram://{name}/{os.path.basename(path)}" for path in source.places.files]
    for path, copy in zip(source.places.files, paths, strict=True):
        tf.io.gfile.copy(path, copy, overwrite=True)
    remote.places = remote.places._replace(files=paths)
    for clip in range(7):
        window = remote.read(clip, num_samples=800, place=0.37)
        np.testing.assert_array_equal(window, source.read(clip, num_samples=800, place=0.37))
    ours, theirs = (TfdsBlocks(each, 9000) for each in (source, remote))
    for block in range(ours.of_clip[-1] + 1):
        for chosen in (slice(None), slice(None, None, 2)):
            clips = np.flatnonzero(ours.of_clip == block)[chosen]
            assert theirs.read(clips) == ours.read(clips)
    # The scan of the files finds the same places.
    parts = [tfds_index.Part(path, 0, count) for path, count in zip(paths, (3, 4), strict=True)]
    counts = np.bincount(source.places.file_of_clip)
    parts = [part._replace(take=int(count)) for part, count in zip(parts, counts, strict=True)]
    clips, places = tfds_index.find_clips(parts, source.features, folder="ram://raw", name=name)
    assert clips.fingerprint() == source.clips.fingerprint()
    for ours, theirs in zip(places[1:], source.places[1:], strict=True):
        np.testing.assert_array_equal(ours, theirs)
    remote.places = places._replace(files=["ram://gone"] * 2)
    with pytest.raises(SatError, match="ram://gone"):
        remote.read(0)
    with pytest.raises(SatError, match="ram://gone"):
        TfdsBlocks(remote, 9000).read(np.array([0]))


def test_blocks_are_neighbours_in_a_file(data_dir):
    source = open_source(data_dir, "raw", "train[2:]+test+train[:2]")
    blocks = TfdsBlocks(source, 9000)
    places = source.places
    ids, firsts = np.unique(blocks.of_clip, return_index=True)
    assert list(ids) == list(range(len(ids))) and (np.diff(firsts) > 0).all()
    assert 1 < len(ids) < len(blocks.of_clip)
    for block in ids:
        clips = np.flatnonzero(blocks.of_clip == block)
        assert len(set(places.file_of_clip[clips])) == 1
        assert (np.diff(places.start[clips]) > 0).all()
        assert places.start[clips[-1]] - places.start[clips[0]] < 9000
        records = blocks.read(clips)
        with open(source.path_of(clips[0]), "rb") as file:
            content = file.read()
        for clip in clips:
            assert records[clip] == content[places.start[clip] : places.end[clip]]
            assert blocks.clip_bytes[clip] == len(records[clip])


def test_files_are_scanned_once(data_dir, monkeypatch):
    first = open_source(data_dir, "raw")

    def fail(*args):
        raise AssertionError("the files are read again")

    monkeypatch.setattr(tfds_index, "_scan", fail)
    again = open_source(data_dir, "raw")
    assert again.clips.fingerprint() == first.clips.fingerprint()
    for ours, theirs in zip(again.places, first.places, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    with pytest.raises(AssertionError):
        open_source(data_dir, "raw", "train[:3]")
    with pytest.raises(AssertionError):
        open_source(data_dir, "twins", ids="label")


def test_rewritten_files_of_the_same_size_are_scanned_again(tmp_path):
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


def test_the_index_of_a_read_only_dataset_is_in_the_cache_folder(tmp_path, monkeypatch):
    name = store(tmp_path, "kept", F.Audio(sample_rate=RATE), lambda s: s, LABEL, lambda i: 0)
    before = sorted(os.listdir(tmp_path / name / "1.0.0"))
    folders = tfds_index._cache_folders
    # Permissions mean nothing to root, but nobody can write below a file.
    below = tmp_path / name / "1.0.0" / "dataset_info.json" / "no"
    monkeypatch.setattr(tfds_index, "_cache_folders", lambda folder: [below, *folders(folder)[1:]])
    open_source(tmp_path, name)
    assert sorted(os.listdir(tmp_path / name / "1.0.0")) == before
    monkeypatch.setattr(tfds_index, "_scan", None)
    assert len(open_source(tmp_path, name).clips.ids) == 7


def test_changed_files_are_scanned_again(tmp_path):
    name = store(tmp_path, "cut", F.Audio(sample_rate=RATE), lambda s: s, LABEL, lambda i: 0)
    source = open_source(tmp_path, name)
    path = source.places.files[0]
    size = os.path.getsize(path)
    os.truncate(path, size - 3)
    with pytest.raises(SatError, match=re.escape(path)):
        open_source(tmp_path, name)
    last = np.flatnonzero(source.places.file_of_clip == 0)[-1]
    os.truncate(path, size - 8)
    with pytest.raises(SatError, match=re.escape(path)):
        source.read(int(last))
    os.remove(path)
    with pytest.raises(SatError, match=re.escape(path)):
        open_source(tmp_path, name)


def test_a_damaged_record_is_named(tmp_path):
    name = store(tmp_path, "bad", F.Audio(sample_rate=RATE), lambda s: s, LABEL, lambda i: 0)
    source = open_source(tmp_path, name)
    path = source.path_of(0)
    with open(path, "r+b") as file:
        file.seek(int(source.places.start[0]))
        file.write(b"\xff\xff")
    with pytest.raises(SatError, match=re.escape(path)) as error:
        source.read(0)
    assert source.clips.ids[0] in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "split", "options", "named"),
    [
        ("nothing", "train", {}, "nothing in {data_dir}: "),
        ("plain:9.9.9", "train", {}, "1.0.0"),
        ("plain", "eval", {}, "'eval'"),
        ("plain", "train[:0]", {}, "plain:train[:0]"),
        ("plain", "train", {"audio": "label"}, "'label'"),
        ("plain", "train", {"labels": "audio"}, "'audio'"),
        ("plain", "train", {"labels": "gone"}, "'gone'"),
        ("floats", "train", {"audio": None}, "floats:train"),
        ("floats", "train", {"sample_rate": None}, "floats:train"),
        ("twins", "train", {}, "'twin'"),
    ],
)
def test_unusable_datasets_are_refused(data_dir, name, split, options, named):
    with pytest.raises(SatError, match=re.escape(named.format(data_dir=data_dir))) as error:
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


def test_places_of_records_and_features(shard):
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


def test_damaged_examples_are_refused():
    file = io.BytesIO(bytes(range(3, 60)))
    with pytest.raises(records.BadRecord, match="byte 0"):
        records.feature_spans(file, records.Span(0, 57))
    with pytest.raises(records.BadRecord, match="byte 0"):
        list(records.record_spans(io.BytesIO(b"\xff" * 40), 40))
