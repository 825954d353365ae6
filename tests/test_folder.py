"""Batches of windows from recordings: which, where from, and the same again."""

import itertools

import numpy as np
import pytest
import soundfile

from data_pipeline.clips import Clip
from data_pipeline.folder import WindowConfig, fingerprint, folder_batches, make_batch, read_window
from sat_jax.errors import SatError

CONFIG = WindowConfig(batch_size=3, window_seconds=0.5, num_classes=9, seed=4)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Seven recordings of 1 s, 0.9 s, …; recording i holds the constant i / 10, and class i."""
    folder = tmp_path_factory.mktemp("clips")
    for i in range(7):
        soundfile.write(folder / f"{i}.wav", np.full(16_000 - 1600 * i, i / 10), 16_000)
    return [Clip(folder / f"{i}.wav", (i,)) for i in range(7)]


@pytest.fixture(scope="module")
def ramp(tmp_path_factory):
    """A recording of 1 s whose sample i is i."""
    path = tmp_path_factory.mktemp("ramp") / "ramp.wav"
    soundfile.write(path, np.arange(16_000, dtype=np.float32), 16_000, subtype="FLOAT")
    return path


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name])


def test_windows_and_targets_belong_together(clips):
    for index in range(3):
        batch = make_batch(clips, CONFIG, index)
        assert batch["waveform"].shape == (3, 8000) and batch["waveform"].dtype == np.float32
        assert batch["target"].shape == (3, 9) and batch["target"].dtype == np.float32
        heard = np.round(batch["waveform"].mean(1) * 10).astype(int)
        np.testing.assert_array_equal(batch["target"], np.eye(9)[heard])
        assert batch["clips"] == [str(clips[i].path) for i in heard]


def test_every_epoch_has_every_clip_once_in_another_order(clips):
    batches = [make_batch(clips, CONFIG, index) for index in range(7)]
    order = [int(row.argmax()) for batch in batches for row in batch["target"]]
    epochs = [order[i : i + 7] for i in (0, 7, 14)]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


def test_a_source_goes_on_anywhere(clips):
    source = folder_batches(clips, CONFIG)
    for start in (0, 3):
        for index, batch in enumerate(itertools.islice(source(start), 4), start):
            assert_same(batch, make_batch(clips, CONFIG, index))


def test_another_seed_gives_other_batches(clips, ramp):
    other = WindowConfig(batch_size=3, window_seconds=0.5, num_classes=9, seed=5)
    assert make_batch(clips, CONFIG, 0)["clips"] != make_batch(clips, other, 0)["clips"]
    starts = {make_batch([Clip(ramp, ())], c, 0)["waveform"][0, 0] for c in (CONFIG, other)}
    assert len(starts) == 2


@pytest.mark.parametrize(("place", "first"), [(0.0, 0), (0.5, 6000), (0.99999, 12_000)])
def test_a_window_lies_where_it_is_placed(ramp, place, first):
    window = read_window(ramp, 4000, place=place)
    np.testing.assert_array_equal(window, np.arange(first, first + 4000))


def test_a_short_recording_is_repeated_or_padded(ramp):
    whole = np.arange(16_000)
    wrapped = read_window(ramp, 40_000, place=0.7, fill="wrap")
    np.testing.assert_array_equal(wrapped, np.concatenate([whole, whole, whole[:8000]]))
    padded = read_window(ramp, 40_000, place=0.7, fill="zeros")
    np.testing.assert_array_equal(padded, np.concatenate([whole, np.zeros(24_000)]))


@pytest.mark.parametrize("promised", [None, 2.0])
def test_a_length_that_is_unknown_or_wrong_does_no_harm(ramp, monkeypatch, promised):
    monkeypatch.setattr("data_pipeline.folder.duration_seconds", lambda path: promised)
    window = read_window(ramp, 4000, place=0.99999)
    np.testing.assert_array_equal(window, np.arange(12_000, 16_000))


def test_an_unreadable_recording_is_named(clips, tmp_path):
    (tmp_path / "bad.wav").write_bytes(b"")
    source = folder_batches([Clip(tmp_path / "bad.wav", ())], CONFIG)
    with pytest.raises(SatError, match=r"bad\.wav"):
        next(source(0))


def test_the_fingerprint_knows_files_and_labels_but_not_the_folder(clips, tmp_path):
    moved = [Clip(tmp_path / clip.path.name, clip.labels) for clip in clips]
    assert fingerprint(moved) == fingerprint(clips)
    assert fingerprint(clips[:-1]) != fingerprint(clips)
    assert fingerprint([*clips[:-1], clips[-1]._replace(labels=(1,))]) != fingerprint(clips)


@pytest.mark.parametrize(
    ("field", "value"), [("batch_size", 0), ("window_seconds", 0.1), ("fill", "loop")]
)
def test_senseless_settings_are_refused_by_name(field, value):
    with pytest.raises(SatError, match=f"data.{field}"):
        WindowConfig(
            **({"batch_size": 1, "window_seconds": 1.0, "num_classes": 1} | {field: value})
        )
