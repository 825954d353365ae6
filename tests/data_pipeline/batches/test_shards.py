"""Clips in the order of shards: how often, by which process, from which step, in which memory."""

import itertools
import weakref

import numpy as np
import pytest

from data_pipeline.batches.reader import window_batches
from data_pipeline.batches.sampling import balanced_weights
from data_pipeline.batches.shards import SPAN, ShardOrder, read_ahead
from data_pipeline.batches.windows import Planner, WindowConfig
from data_pipeline.sources.source import make_table
from sat_jax.errors import SatError

SIZES = np.random.default_rng(3).integers(500, 1500, 203)
OF_CLIP = np.arange(203) // 7
LABELS = [(0,), (0, 1), (0,), (2,), (), (0, 2), (0,), (1, 3)]


class Clips:
    """Clips in blocks of seven; sample i of clip c is c + i / 10 000."""

    of_clip, clip_bytes = OF_CLIP, SIZES
    clips = make_table([f"clip {i}" for i in range(203)], (LABELS * 26)[:203])

    def __init__(self, bad=None):
        self.bad, self.read_blocks, self.live = bad, [], 0

    def read(self, clips):
        (block,) = set(OF_CLIP[clips].tolist())
        self.read_blocks.append(block)
        if block == self.bad:
            raise SatError(f"block {block}: broken")
        found = {clip: Record(clip + np.arange(SIZES[clip]) / 10_000) for clip in clips.tolist()}
        size = int(SIZES[clips].sum())
        self.live += size
        weakref.finalize(found[clips[0]], self._drop, size)
        return found

    def _drop(self, size):
        self.live -= size

    def source(self, reads):
        return InMemory(reads)


class Record:
    """Samples that can be watched."""

    def __init__(self, samples):
        self.samples = samples.astype(np.float32)


class InMemory:
    """Reads the clips of one batch."""

    def __init__(self, reads):
        self.reads = reads

    def read(self, index, *, num_samples, place, start):
        sound = self.reads[index].result()[index].samples
        first = int(place * max(1, len(sound) - num_samples + 1))
        return sound[first : first + num_samples]


def order(eligible=203, *, blocks=None, memory=20_000, **fields):
    clips = np.sort(np.random.default_rng(eligible).permutation(203)[:eligible])
    return ShardOrder(clips, blocks or Clips(), seed=5, memory=memory, **fields)


@pytest.mark.parametrize("processes", [1, 3, 4])
@pytest.mark.parametrize("eligible", [203, 100, 5])
def test_processes_share_each_pass(eligible, processes):
    orders = [
        order(eligible, process_index=index, process_count=processes) for index in range(processes)
    ]
    sizes = [len(part) for part in np.array_split(np.arange(eligible), processes)]
    runs = [each.clips(np.arange(3 * 203)) for each in orders]
    passes = []
    for index in range(3):
        parts = []
        for run, process in zip(runs, orders, strict=True):
            size = process._pass_size
            assert size in sizes
            parts.append(run[index * size : (index + 1) * size])
        passes.append(np.concatenate(parts))
        np.testing.assert_array_equal(np.sort(passes[-1]), np.sort(orders[0]._eligible))
        # Each process has blocks of its own, but for one that it shares with its neighbour.
        blocks = [set(OF_CLIP[part].tolist()) for part in parts]
        for one, other in itertools.combinations(blocks, 2):
            assert len(one & other) <= 1
    if eligible > 5:
        assert not np.array_equal(passes[0], passes[1])


@pytest.mark.parametrize("processes", [1, 4])
def test_balanced_draws_are_the_expected_number_rounded(processes):
    weights = balanced_weights(Clips.clips)
    fields = {"weights": weights, "draws": 50, "process_count": processes}
    orders = [order(process_index=index, **fields) for index in range(processes)]
    assert orders[0].epoch_size == 50
    counts = np.array(
        [
            sum(np.bincount(each._pass(index), minlength=203) for each in orders)
            for index in range(60)
        ]
    )
    expected = 203 * weights / weights.sum()
    assert (counts.sum(axis=1) == 203).all()
    assert (np.abs(counts - expected) < 1).all()
    # Over many passes each clip has its share: five deviations of a mean of 60 values within 1.
    np.testing.assert_allclose(counts.mean(axis=0), expected, atol=5 * 0.5 / np.sqrt(60))
    # Any stretch of blocks has its share within two windows, so each class within its labels.
    for index in range(5):
        clips = np.concatenate([each._pass(index) for each in orders])
        drawn = sum(np.bincount(Clips.clips.labels(clip), minlength=4) for clip in clips)
        share = sum(
            e * np.bincount(Clips.clips.labels(clip), minlength=4)
            for clip, e in enumerate(expected)
        )
        np.testing.assert_allclose(drawn / drawn.sum(), share / share.sum(), atol=0.03)


@pytest.mark.parametrize("processes", [1, 2])
def test_a_plan_of_balanced_shards_draws_as_often_as_weights_say(processes):
    fields = {"batch_size": 58, "window_seconds": 0.16, "num_classes": 4, "read_order": "shards"}
    config = WindowConfig(**fields, sampler="balanced")
    plans = [
        Planner(Clips.clips, config, blocks=Clips(), process_index=i, process_count=processes)
        for i in range(processes)
    ]
    drawn = np.concatenate([plan(step).clip for plan in plans for step in range(70)])
    weights = balanced_weights(Clips.clips)
    counts, expected = np.bincount(drawn, minlength=203), 58 * 70 * weights / weights.sum()
    assert not counts[weights == 0].any()
    # 20 passes, each rounded at random: five deviations.
    np.testing.assert_allclose(counts, expected, atol=5 * 0.5 * np.sqrt(20))


def test_windows_move_by_less_than_the_span_and_are_mixed():
    shuffled = order(memory=40_000)
    clips = shuffled._pass(0)
    blocks = OF_CLIP[clips]
    first = {block: np.flatnonzero(blocks == block) for block in range(29)}
    for places in first.values():
        between = SIZES[clips[places[0] : places[-1]]].sum()
        assert between < 2 * (SPAN * 40_000 + 7 * 1500)
    # Neighbours mostly come from different blocks, and 20 000 bytes hold three of them.
    assert (np.diff(blocks) != 0).mean() > 0.5


def test_balanced_draws_of_neighbours_are_independent():
    # The first two clips of a block are drawn every other pass: not always in different ones.
    weights = np.where(np.arange(203) % 7 < 2, 0.5, 1.2)
    balanced = order(weights=weights)
    counts = np.array([np.bincount(balanced._pass(i), minlength=203) for i in range(20)])
    both = counts[:, 0::7] + counts[:, 1::7]
    assert {0, 1, 2} == set(both.ravel().tolist())


def test_a_clip_drawn_often_takes_its_memory_once():
    weights = np.where(np.arange(203) % 7 == 0, 1.0, 0.0)
    clips = order(memory=20_000, weights=weights)._pass(0)  # Each of 29 clips seven times.
    spans = []
    for clip in np.unique(clips):
        places = np.flatnonzero(clips == clip)
        spans.append(SIZES[np.unique(clips[places[0] : places[-1]])].sum())
    # The furthest two of seven windows are three quarters of the span apart on average; others
    # from before and after lie between them.
    assert SPAN * 20_000 * 0.75 < np.median(spans) < 2 * SPAN * 20_000


@pytest.mark.parametrize("sampler", ["shuffle", "balanced"])
@pytest.mark.parametrize("processes", [1, 2])
def test_a_run_resumes_with_the_same_batches(sampler, processes):
    pytest.importorskip("tensorflow")
    config = WindowConfig(
        batch_size=24, window_seconds=0.16, num_classes=4, sampler=sampler, read_order="shards"
    )
    for index in range(processes):
        blocks = Clips()
        planner = Planner(
            blocks.clips, config, blocks=blocks, process_index=index, process_count=processes
        )
        batches = window_batches(blocks, planner, config, workers=3, tf_data=True)
        seen = list(itertools.islice(batches(0), 12))  # More than a pass.
        for start in (1, 7, 9):
            for ours, theirs in zip(batches(start), seen[start:], strict=False):
                for name in ("waveform", "target", "clips"):
                    np.testing.assert_array_equal(ours[name], theirs[name])
        for step, batch in enumerate(seen):
            plan = planner(step)
            assert batch["clips"] == [f"clip {clip}" for clip in plan.clip]
            np.testing.assert_array_equal(batch["waveform"][:, 0].astype(int), plan.clip)
            np.testing.assert_array_equal(batch["target"], blocks.clips.targets(plan.clip, 4))
        at_random = Planner(blocks.clips, config, process_index=index, process_count=processes)
        np.testing.assert_array_equal(planner(3).place, at_random(3).place)


@pytest.mark.parametrize("weights", [None, balanced_weights(Clips.clips)])
def test_blocks_are_read_once_a_pass_within_the_memory(weights):
    blocks, memory = Clips(), 60_000
    sequence = order(blocks=blocks, memory=memory, weights=weights, draws=9)
    sources = read_ahead(sequence, first=0, rows=5, memory=memory, workers=2)
    most = 0
    for step in range(203 * 3 // 5):
        source = next(sources)
        for clip in sequence.clips(step * 5 + np.arange(5)).tolist():
            assert source.read(clip, num_samples=9, place=0.0, start=None)[0] == clip
        del source
        most = max(most, blocks.live)
    used = [len(set(OF_CLIP[sequence._pass(index)].tolist())) for index in range(5)]
    assert sum(used[:3]) <= len(blocks.read_blocks) <= sum(used[:5])
    # The batch before may hold a block, and so may the last read.
    assert memory / 2 < most <= memory + 2 * 7 * 1500
    sources.close()
    assert blocks.live == 0


def test_the_next_pass_is_read_before_it_begins(monkeypatch):
    sequence, asked = order(memory=60_000), []
    visits = sequence.visits

    def watched(first, last=None):
        for visit in visits(first, last):
            if last is None:
                asked.append(visit)
            yield visit

    monkeypatch.setattr(sequence, "visits", watched)
    sources = read_ahead(sequence, first=0, rows=7, memory=60_000, workers=2)
    for _ in range(203 // 7):  # The whole first pass.
        next(sources)
    ahead = sum(int(SIZES[visit.clips].sum()) for visit in asked[:-1] if visit.key[0] == 1)
    assert ahead > SPAN * 60_000
    sources.close()


def test_small_data_is_read_at_most_a_pass_ahead():
    blocks = Clips()
    sources = read_ahead(order(blocks=blocks), first=0, rows=5, memory=1 << 40, workers=2)
    next(sources).read(int(order().clips(np.arange(1))[0]), num_samples=9, place=0.0, start=None)
    sources.close()
    assert len(blocks.read_blocks) <= 2 * 29


def test_a_block_that_cannot_be_read_ends_the_run_where_it_is_needed():
    pytest.importorskip("tensorflow")
    blocks = Clips(bad=11)
    config = WindowConfig(batch_size=4, window_seconds=0.16, num_classes=4, read_order="shards")
    planner = Planner(blocks.clips, config, blocks=blocks)
    bad = next(step for step in itertools.count() if 11 in OF_CLIP[planner(step).clip])
    batches = window_batches(blocks, planner, config, workers=3, tf_data=True)(max(0, bad - 2))
    for _ in range(max(0, bad - 2), bad):
        next(batches)
    with pytest.raises(SatError, match="block 11"):
        next(batches)


def test_more_processes_than_clips_are_refused():
    with pytest.raises(SatError, match=r"^5 clips .* 6 processes"):
        order(5, process_index=0, process_count=6)
