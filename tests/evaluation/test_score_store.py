"""Scores on disk: resuming, changed recordings, damaged files."""

import json

import numpy as np
import pytest

from sat_jax.errors import SatError
from sat_jax.evaluation.score_store import ClipScores, ScoreStore

CLASSES = 3


def clip_scores(clip, rows=2, seed=0):
    rng = np.random.default_rng([clip, seed])
    return ClipScores(clip, 100 * rows, rng.random((rows, CLASSES), np.float32))


def open_store(folder, versions=(0, 0, 0, 0)):
    return ScoreStore(folder / "store", {"model": "m"}, CLASSES, np.array(versions))


def check_scores(store, expected):
    assert list(store.scores) == sorted(each.clip for each in expected)
    for each in expected:
        found = store.scores[each.clip]
        assert (found.clip, found.num_samples) == (each.clip, each.num_samples)
        np.testing.assert_array_equal(found.probs, each.probs)


def test_scores_are_found_again_in_order_of_clips(tmp_path):
    first, second = [clip_scores(2), clip_scores(0, rows=1)], [clip_scores(1, rows=5)]
    with open_store(tmp_path) as store:
        store.add(first)
        store.add(second)
        check_scores(store, [*first, *second])
    with open_store(tmp_path) as store:
        check_scores(store, [*first, *second])
    assert json.loads((tmp_path / "store/about.json").read_text()) == {"model": "m"}


def test_parts_are_numpy_files(tmp_path):
    scores = [clip_scores(3), clip_scores(1, rows=1)]
    with open_store(tmp_path, versions=(7, 8, 9, 10)) as store:
        store.add(scores)
    part = np.load(tmp_path / "store/part-000000.npy")
    assert part["clip"].tolist() == [3, 3, 1]
    assert part["version"].tolist() == [10, 10, 8]
    assert part["num_samples"].tolist() == [200, 200, 100]
    np.testing.assert_array_equal(part["probs"], np.concatenate([each.probs for each in scores]))


def test_changed_recordings_have_no_scores_until_they_are_scored_again(tmp_path):
    old, new = [clip_scores(0), clip_scores(1), clip_scores(2)], clip_scores(1, rows=4, seed=1)
    with open_store(tmp_path) as store:
        store.add(old)
    with open_store(tmp_path, versions=(0, 1, 0, 0)) as store:
        check_scores(store, [old[0], old[2]])
        assert store.changed == {1}
        store.add([new])
        check_scores(store, [old[0], new, old[2]])
        assert not store.changed
    with open_store(tmp_path) as store:  # Changed back.
        check_scores(store, old)


@pytest.mark.parametrize("size", [0, 60, -1])
def test_clips_of_a_damaged_part_are_scored_again(tmp_path, size):
    parts = [clip_scores(0)], [clip_scores(1)], [clip_scores(2)]
    with open_store(tmp_path) as store:
        for part in parts:
            store.add(part)
    damaged = tmp_path / "store/part-000001.npy"
    damaged.write_bytes(damaged.read_bytes()[:size])
    with open_store(tmp_path) as store:
        check_scores(store, [*parts[0], *parts[2]])
        store.add(parts[1])
    with open_store(tmp_path) as store:
        check_scores(store, [*parts[0], *parts[1], *parts[2]])


def test_a_part_that_cannot_be_written_changes_nothing(tmp_path, monkeypatch):
    def fail(file, rows):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    with open_store(tmp_path) as store:
        monkeypatch.setattr(np, "save", fail)
        with pytest.raises(SatError, match=r"part-000000\.npy"):
            store.add([clip_scores(0)])
        assert not store.scores
    assert not list((tmp_path / "store").glob("*.npy"))


def test_one_program_at_a_time(tmp_path):
    with open_store(tmp_path), pytest.raises(SatError, match=str(tmp_path / "store")):
        open_store(tmp_path)
    with open_store(tmp_path):
        pass
