"""Plans of batches: clips, windows and targets, for several processes, from any step."""

import itertools

import numpy as np
import pytest

from data_pipeline.batches.reader import clip_batches, window_batches
from data_pipeline.batches.sampling import ClipOrder, balanced_weights
from data_pipeline.batches.windows import Planner, WindowConfig, fill_window
from data_pipeline.psl.table import PslTable
from data_pipeline.psl.windows import PslWindows
from data_pipeline.sources.source import make_table
from sat_jax.errors import SatError

LABELS = [(0,), (0, 1), (0,), (2,), (), (0, 2), (0,)]


class Sounds:
    """Clips in memory; sample i of clip c is c + i / 1000."""

    def __init__(self, lengths, labels=None):
        self.lengths = lengths
        self.clips = make_table([f"clip {i}" for i in range(len(lengths))], labels or LABELS)

    def read(self, index, *, num_samples, place, start):
        sound = index + np.arange(self.lengths[index], dtype=np.float32) / 1000
        first = int(place * max(1, len(sound) - num_samples + 1))
        if start is not None:
            first = round(start * 16_000)
        return sound[first : first + num_samples]


def config(**fields):
    base = {"batch_size": 6, "window_seconds": 0.16, "num_classes": 3}
    return WindowConfig(**{**base, **fields})


def test_weights_are_the_published_formula():
    counts = {0: 5, 1: 1, 2: 2}
    expected = [sum(1000 / (counts[label] + 100) for label in clip) for clip in LABELS]
    table = make_table([str(i) for i in range(7)], LABELS)
    np.testing.assert_allclose(balanced_weights(table), expected)


def test_clips_are_drawn_in_proportion_to_their_weights():
    weights = np.array([1.0, 2.0, 0.0, 5.0])
    order = ClipOrder(np.array([3, 5, 6, 9]), seed=0, weights=weights, draws=20_000)
    drawn = order.clips(np.arange(40_000))
    shares = np.array([(drawn == clip).mean() for clip in (3, 5, 6, 9)])
    # Five standard deviations of a share drawn 40 000 times.
    np.testing.assert_allclose(shares, weights / 8, atol=5 * 0.5 / 200)
    assert not (drawn[:20_000] == drawn[20_000:]).all()  # each epoch is drawn anew


def test_every_clip_is_seen_once_an_epoch():
    order = ClipOrder(np.arange(7), seed=0)
    epochs = order.clips(np.arange(7 * 50)).reshape(50, 7)
    assert (np.sort(epochs, axis=1) == np.arange(7)).all()
    assert len({tuple(epoch) for epoch in epochs}) > 40


@pytest.mark.parametrize("sampler", ["shuffle", "balanced"])
def test_all_processes_plan_the_same_steps(sampler):
    table = Sounds([3000] * 7).clips
    whole = Planner(table, config(sampler=sampler, draws_per_epoch=10))
    halves = [
        Planner(
            table,
            config(sampler=sampler, draws_per_epoch=10),
            process_index=index,
            process_count=2,
        )
        for index in range(2)
    ]
    for step in (5, 0, 3):
        together = [np.concatenate(parts) for parts in zip(*(h(step) for h in halves), strict=True)]
        for one, other in zip(whole(step), together, strict=True):
            np.testing.assert_array_equal(one, other)
    assert not np.array_equal(whole(0).place, whole(1).place)


def test_batches_follow_the_plan_from_any_step():
    source = Sounds([3000, 9000, 2000, 3000, 3000, 3000, 2560])
    planner = Planner(source.clips, config())
    batches = window_batches(source, planner, config(), workers=3)
    seen = list(itertools.islice(batches(0), 6))
    for step, batch in enumerate(seen):
        plan = planner(step)
        for row in range(6):
            clip, wave = plan.clip[row], batch["waveform"][row]
            assert batch["clips"][row] == f"clip {clip}"
            length = source.lengths[clip]
            first = int(plan.place[row] * max(1, length - 2560 + 1))
            expected = clip + np.arange(first, min(first + 2560, length), dtype=np.float32) / 1000
            np.testing.assert_allclose(wave, np.resize(expected, 2560), rtol=1e-6)
            np.testing.assert_array_equal(np.flatnonzero(batch["target"][row]), LABELS[clip])
    for step, batch in zip(range(4, 6), batches(4), strict=False):
        for name in ("waveform", "target", "clips"):
            np.testing.assert_array_equal(batch[name], seen[step][name])


def test_windows_reach_both_ends_of_a_clip():
    table = make_table(["a"], [(0,)])
    planner = Planner(table, config(batch_size=1000))
    places = np.concatenate([planner(step).place for step in range(4)])
    first = np.floor(places * (16_000 - 2560 + 1))
    assert places.min() >= 0 and places.max() < 1
    assert first.min() < 40 and first.max() > 16_000 - 2560 - 40


def psl_table():
    """Windows of three clips: 2 s long, 1 s apart; clip 1 has none, clip 2 a short one."""
    start = np.array([0, 1, 2, 3, 0], np.float32)
    end = np.array([2, 3, 4, 5, 1.5], np.float32)
    indices = np.array([[0, 1], [1, 2], [2, 0], [0, 2], [1, 0]], np.int32)
    probs = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.6, 0.4], [0.5, 0]], np.float32)
    return PslTable(np.array([0, 4, 4, 5]), start, end, indices, probs)


def dense(row):
    table, target = psl_table(), np.zeros(3, np.float32)
    for index, prob in zip(table.indices[row], table.probs[row], strict=True):
        target[index] = max(target[index], prob)
    return target


def test_windows_start_at_their_pseudo_labels():
    clips = make_table(["a", "b", "c"], [(0,), (1,), (2,)])
    fields = {"window_seconds": 2.0, "psl_share": 0.25, "batch_size": 50}
    windows = PslWindows(psl_table(), window_seconds=2.0)
    plan = Planner(clips, config(**fields), psl=windows)(0)
    seen = set()
    for clip, start, target in zip(plan.clip, plan.start, plan.target, strict=True):
        row = {0: int(start), 2: 4}[int(clip)]
        assert start == psl_table().start[row]
        hard = np.eye(3, dtype=np.float32)[clip]
        np.testing.assert_allclose(target, 0.75 * hard + 0.25 * dense(row), rtol=1e-6)
        seen.add(row)
    assert seen == {0, 1, 2, 3, 4}


def test_chunks_have_the_labels_of_their_own_time():
    clips = make_table(["a", "b", "c"], [(0,), (1,), (2,)])
    windows = PslWindows(psl_table(), window_seconds=4.0, chunks=2)
    fields = {"window_seconds": 4.0, "psl_share": 1.0, "chunks": 2, "batch_size": 40}
    plan = Planner(clips, config(**fields), psl=windows)(0)
    assert plan.target.shape == (40, 2, 3) and set(plan.clip) == {0}
    assert set(plan.start) == {0.0, 1.0}  # 0-2-4 and 1-3-5; nothing follows the others
    for start, target in zip(plan.start, plan.target, strict=True):
        np.testing.assert_allclose(target, [dense(int(start)), dense(int(start) + 2)])


def table_of(*clips):
    """Pseudo strong labels of clips, each given as the windows of it: (start, end)."""
    windows = np.array([window for clip in clips for window in clip], np.float32)
    indices, probs = np.zeros((len(windows), 1), np.int32), np.ones((len(windows), 1), np.float32)
    firsts = np.cumsum([0, *map(len, clips)])
    return PslTable(firsts, windows[:, 0], windows[:, 1], indices, probs)


def test_short_labels_fit_only_the_end_of_a_clip():
    long, short = [(0, 2), (2, 4), (4, 4.5)], [(0, 0.7)]
    windows = PslWindows(table_of(long, short), window_seconds=2.0)
    starts = {
        (clip, float(windows.choose(np.array([clip]), np.float32([place]), 1)[0][0]))
        for clip in windows.clips
        for place in (0.0, 0.4, 0.9)
    }
    assert starts == {(0, 0.0), (0, 2.0), (0, 4.0), (1, 0.0)}
    chains = PslWindows(table_of(long, short), window_seconds=4.0, chunks=2)
    assert list(chains.clips) == [0]
    places = np.float32([0.0, 0.9])
    assert list(chains.choose(np.array([0, 0]), places, 1)[0]) == [0.0, 2.0]
    seconds = [(float(i), i + 1.0) for i in range(4)]
    for chunks in (1, 2):
        with pytest.raises(SatError, match=rf"{chunks} x 2 s.*--window 2"):
            PslWindows(table_of(seconds, short), window_seconds=2.0 * chunks, chunks=chunks)


def test_settings_that_do_not_fit_are_refused():
    clips = make_table(["a", "b", "c"], [(0,), (1,), (2,)])
    with pytest.raises(SatError, match=r"batch_size=6.* 4 "):
        Planner(clips, config(), process_count=4)
    with pytest.raises(SatError, match=r"data\.psl_share=1"):
        Planner(clips, config(psl_share=1.0))
    with pytest.raises(SatError, match=r" 5 .*2 x 0\.5 s"):
        PslWindows(psl_table(), window_seconds=1.0, chunks=2)
    with pytest.raises(SatError, match="'balanced'"):
        Planner(make_table(["a"], [()]), config(sampler="balanced"))
    with pytest.raises(SatError, match=r"data\.psl_share=2"):
        config(psl_share=2)


@pytest.mark.parametrize("processes", [1, 2])
def test_validation_counts_every_clip_once(processes):
    lengths = [3000, 9000, 2000, 3000, 100, 3000, 2560]
    source = Sounds(lengths)
    batches = [
        list(
            clip_batches(
                source,
                batch_size=4,
                num_samples=4000,
                num_classes=3,
                process_index=index,
                process_count=processes,
            )
        )
        for index in range(processes)
    ]
    assert {len(steps) for steps in batches} == {2}
    rows = []
    for steps in zip(*batches, strict=True):
        for batch in steps:
            for row in np.flatnonzero(batch["is_real"]):
                rows.append({name: array[row] for name, array in batch.items()})
    assert len(rows) == 7
    for clip, row in enumerate(rows):
        length = min(lengths[clip], 4000)
        assert row["num_samples"] == length
        expected = clip + np.arange(length, dtype=np.float32) / 1000
        np.testing.assert_allclose(row["waveform"][:length], expected, rtol=1e-6)
        assert not row["waveform"][length:].any()
        np.testing.assert_array_equal(np.flatnonzero(row["target"]), LABELS[clip])


def test_targets_are_empty_without_classes():
    source = Sounds([3000] * 7)
    planner = Planner(source.clips, config(num_classes=0))
    assert planner(0).target.shape == (6, 0)
    (batch, _) = clip_batches(source, batch_size=4, num_samples=100, num_classes=0)
    assert batch["target"].shape == (4, 0)


@pytest.mark.parametrize(("fill", "rest"), [("wrap", [1, 2, 3, 1]), ("zeros", [0, 0, 0, 0])])
def test_short_windows_are_repeated_or_padded(fill, rest):
    filled = np.full(7, np.nan, np.float32)
    fill_window(np.arange(1, 4, dtype=np.float32), fill, out=filled)
    np.testing.assert_array_equal(filled, [1, 2, 3, *rest])
