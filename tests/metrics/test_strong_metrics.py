"""Measures against events, each compared with its definition written out in loops."""

import itertools
import math
import statistics
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st

from sat_jax.errors import SatError
from sat_jax.labels import Event
from sat_jax.metrics import psds, strong
from sat_jax.metrics.psds import check_psds, psds1
from sat_jax.metrics.rows import ChosenRows
from sat_jax.metrics.strong import (
    TimedClip,
    onset_delays,
    overlapped,
    segment_average_precision,
)


def timed(borders, events):
    borders = np.asarray(borders, np.float64)
    return TimedClip(start=borders[:-1], end=borders[1:], events=events)


def segment_targets(events, start, end, classes):
    """In which chunks an event of each class is heard: bool [k, y]."""
    heard = [np.zeros(len(start), bool)]
    by_class = [
        heard + [overlapped(event, start, end) for event in events if event.class_index == index]
        for index in range(classes)
    ]
    return np.stack([np.any(of_class, axis=0) for of_class in by_class], axis=1)


def random_case(seed, *, clips=20, classes=5, levels=8):
    """Clips of whole seconds; class 0 has no event, class 1 some that overlap each other."""
    rng = np.random.default_rng(seed)
    table = []
    for index in range(clips):
        borders = np.cumsum([0, *rng.integers(10, 40, rng.integers(2, 9))]).tolist()
        events = [Event(1, 0, 5), Event(1, 3, 9), Event(1, 9, 12)] if index == 0 else []
        for label in rng.integers(1, classes, rng.integers(0, 4)).tolist():
            first, last = sorted(rng.choice(len(borders), 2, replace=False).tolist())
            onset, offset = borders[first] + rng.integers(0, 5), borders[last] + rng.integers(-5, 5)
            events.append(Event(label, int(onset), int(offset)))
        table.append(timed(borders, events))
    targets = np.concatenate([segment_targets(c.events, c.start, c.end, classes) for c in table])
    # Mostly right, so that there is something to measure; few levels, so that there are ties.
    scores = 0.45 * targets + 0.55 * rng.random(targets.shape)
    return table, (np.ceil(scores * levels) / levels).astype(np.float32)


@settings(max_examples=200, deadline=None)
@given(
    st.integers(1, 20000),
    st.integers(1, 12),
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 200000), st.integers(1, 60000))),
)
def test_a_class_is_active_in_the_chunks_that_its_events_share_samples_with(size, chunks, events):
    start = np.arange(chunks) * (size / 16000)  # Sums and products round differently.
    end = np.cumsum(np.full(chunks, size / 16000))
    in_seconds = [Event(c, on / 16000, (on + length) / 16000) for c, on, length in events]
    wanted = np.zeros((chunks, 4), bool)
    for chunk in range(chunks):
        for index, on, length in events:
            shared = min((chunk + 1) * size, on + length) - max(chunk * size, on)
            wanted[chunk, index] |= shared > 0
    np.testing.assert_array_equal(segment_targets(in_seconds, start, end, 4), wanted)


def test_touching_is_no_overlap():
    start, end = np.array([0.0, 0.1 + 0.2]), np.array([0.1 + 0.2, 0.6])
    assert overlapped(Event(0, 0.3, 0.6), start, end).tolist() == [False, True]
    assert overlapped(Event(0, 0.0, 0.3), start, end).tolist() == [True, False]
    assert overlapped(Event(0, 0.29, 0.31), start, end).tolist() == [True, True]
    assert overlapped(Event(0, 0.6, 0.7), start, end).tolist() == [False, False]


@pytest.fixture(params=[None, 1, 100], ids=["at once", "single classes", "blocks"])
def blocks(request, monkeypatch):
    """How many scores are read at once."""
    if request.param:
        monkeypatch.setattr(strong, "_BLOCK_VALUES", request.param)
        monkeypatch.setattr(psds, "_BLOCK_VALUES", request.param)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.usefixtures("blocks")
def test_segment_precision_is_that_of_scikit_learn(seed, tmp_path):
    clips, scores = random_case(seed)
    np.save(tmp_path / "scores.npy", scores)
    measured = segment_average_precision(clips, np.load(tmp_path / "scores.npy", mmap_mode="r"))
    truth = np.array(
        [
            [
                any(e.class_index == c and e.onset < end and e.offset > start for e in clip.events)
                for c in range(scores.shape[1])
            ]
            for clip in clips
            for start, end in zip(clip.start, clip.end, strict=True)
        ]
    )
    wanted = [
        sklearn.metrics.average_precision_score(t, s)
        for t, s in zip(truth.T[1:], scores.T[1:], strict=True)
    ]
    np.testing.assert_array_equal(measured.average_precision, [np.nan, *wanted])
    assert measured.mean_average_precision == pytest.approx(statistics.fmean(wanted), rel=1e-12)
    assert measured.positives.tolist() == truth.sum(0).tolist()
    assert (measured.num_segments, measured.classes_without_positives) == (len(truth), 1)


def delays_by_definition(clips, scores, threshold):
    row = 0
    for clip in clips:
        for event in clip.events:
            for chunk, (start, end) in enumerate(zip(clip.start, clip.end, strict=True)):
                least = np.float32(np.broadcast_to(threshold, scores.shape[1])[event.class_index])
                overlaps = start < event.offset and end > event.onset
                if overlaps and scores[row + chunk, event.class_index] >= least:
                    yield end - event.onset
                    break
            else:
                yield None
        row += len(clip.start)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("threshold", [0.75, np.linspace(0.5, 1.0, 5)])
def test_onset_delays_follow_their_definition(seed, threshold):
    clips, scores = random_case(seed)
    measured = onset_delays(clips, scores, threshold)
    wanted = list(delays_by_definition(clips, scores, threshold))
    found = [delay for delay in wanted if delay is not None]
    assert 0 < len(found) < len(wanted)
    assert (measured.events, measured.detected) == (len(wanted), len(found))
    assert measured.share_detected == len(found) / len(wanted)
    assert measured.median == statistics.median(found)
    assert measured.mean == pytest.approx(statistics.fmean(found), rel=1e-12)


def test_an_answer_comes_at_the_end_of_a_chunk():
    scores = np.float32([[0.9], [0.3], [0.29999998], [0.9]])
    clip = timed([0, 1, 2, 3, 4], [Event(0, 1.25, 3.5), Event(0, 2.0, 2.5), Event(0, 5.0, 6.0)])
    measured = onset_delays([clip], scores, 0.3)
    assert (measured.events, measured.detected, measured.mean) == (3, 1, 0.75)


def test_without_events_there_is_no_delay():
    measured = onset_delays([timed([0, 1], [])], np.ones((1, 1)))
    assert (measured.share_detected, measured.median, measured.mean) == (None, None, None)


@pytest.fixture
def library():
    """Skips where the library is missing: it has to be compiled, so not all who test have it."""
    pytest.importorskip("sed_scores_eval")


def runs(chunks, borders):
    """The runs of true chunks as (onset, offset)."""
    found = []
    for chunk, (start, end) in zip(chunks, itertools.pairwise(borders), strict=True):
        if chunk and found and found[-1][1] == start:
            found[-1] = (found[-1][0], end)
        elif chunk:
            found.append((start, end))
    return found


def psd_counts(clips, scores, index, threshold):
    """Events found, events and false alarms of one class at one threshold, in whole seconds."""
    hits = events = false_alarms = row = 0
    for clip in clips:
        borders = [int(border) for border in (*clip.start, clip.end[-1])]
        detections = runs(scores[row : row + len(clip.start), index] >= threshold, borders)
        row += len(clip.start)
        of_class = [event for event in clip.events if event.class_index == index]
        last = max((event.offset for event in of_class), default=0)
        # Second by second, and one event for those that touch.
        seconds = [any(e.onset <= s < e.offset for e in of_class) for s in range(last)]
        truth = runs(seconds, range(last + 1))
        shared = [[max(0, min(d[1], t[1]) - max(d[0], t[0])) for t in truth] for d in detections]
        good = [10 * sum(s) >= 7 * (d[1] - d[0]) for s, d in zip(shared, detections, strict=True)]
        false_alarms += good.count(False)
        events += len(truth)
        for place, (onset, offset) in enumerate(truth):
            found = sum(s[place] for s, is_good in zip(shared, good, strict=True) if is_good)
            hits += 10 * found >= 7 * (offset - onset)
    return hits, events, false_alarms


def psds_by_definition(clips, scores, classes):
    """Area under mean minus deviation of the classes' best hit rates, up to 100 an hour."""
    hours = sum(clip.end[-1] for clip in clips) / 3600
    curves = []
    for index in classes:
        points = [(0.0, 0.0)]
        for threshold in np.unique(scores):
            hits, events, false_alarms = psd_counts(clips, scores, index, threshold)
            points.append((false_alarms / hours, hits / events))
        curves.append(points)
    rates = [*sorted({rate for points in curves for rate, _ in points if rate <= 100.0}), 100.0]
    area = 0.0
    for rate, after in itertools.pairwise(rates):
        best = [max(share for at, share in points if at <= rate) for points in curves]
        area += max(0.0, statistics.fmean(best) - statistics.pstdev(best)) * (after - rate)
    return area / 100.0


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.usefixtures("library", "blocks")
def test_psds_follows_its_definition(seed):
    clips, scores = random_case(seed)
    measured = psds1(clips, scores)
    wanted = [psds_by_definition(clips, scores, [index]) for index in range(1, 5)]
    np.testing.assert_allclose(measured.per_class, [np.nan, *wanted], rtol=1e-9)
    assert measured.value == pytest.approx(psds_by_definition(clips, scores, range(1, 5)), rel=1e-9)
    assert 0.02 < measured.value < 0.9 and np.isnan(measured.per_class).sum() == 1


@pytest.mark.usefixtures("library")
def test_psds_of_perfect_and_reversed_scores():
    events = [[Event(0, 1.0, 2.0), Event(1, 0.0, 2.0)], [Event(1, 2.0, 3.0)], []]
    clips = [timed([0, 1, 2, 3, 4], of_clip) for of_clip in events]
    targets = np.concatenate([segment_targets(c.events, c.start, c.end, 3) for c in clips])
    perfect, reversed_ = psds1(clips, 1.0 * targets), psds1(clips, 1.0 - targets)
    assert (perfect.value, reversed_.value) == (1.0, 0.0)
    np.testing.assert_array_equal(perfect.per_class, [1.0, 1.0, np.nan])
    np.testing.assert_array_equal(reversed_.per_class, [0.0, 0.0, np.nan])
    assert np.isnan(perfect.per_class).sum() == 1


@pytest.mark.usefixtures("library")
def test_psds_of_memory_mapped_scores_and_sums_of_chunk_lengths(tmp_path):
    # 0.16 s in sums that round; the start of a chunk may differ from the last one's end by that.
    start, end = np.arange(60) * 0.16, np.cumsum(np.full(60, 0.16))
    clip = TimedClip(start=start, end=end, events=[Event(1, 16 * 0.16, 48 * 0.16)])
    scores = np.zeros((60, 2), np.float32)
    scores[16:48, 1] = 0.75
    np.save(tmp_path / "scores.npy", scores)
    assert psds1([clip], np.load(tmp_path / "scores.npy", mmap_mode="r")).value == 1.0


@pytest.mark.usefixtures("library")
def test_chosen_rows_are_measured_without_a_copy_of_them_all(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    table = np.memmap(tmp_path / "t", np.float32, "w+", shape=(20_000, 400))
    table[:] = rng.random(table.shape, np.float32)
    rows = np.flatnonzero(rng.random(len(table)) < 0.9)[:17_000]
    clips = [timed(range(11), [Event(index % 3, 1.0, 4.0)]) for index in range(1_700)]
    monkeypatch.setattr(psds, "_BLOCK_VALUES", 20_000)
    monkeypatch.setattr(strong, "_BLOCK_VALUES", 20_000)
    chosen = ChosenRows(table, rows)
    tracemalloc.start()
    made = segment_average_precision(clips, chosen), onset_delays(clips, chosen, 0.5)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    copy = np.asarray(table)[rows]
    assert peak < copy.nbytes / 4
    wanted = segment_average_precision(clips, copy)
    np.testing.assert_array_equal(made[0].average_precision, wanted.average_precision)
    assert made[1] == onset_delays(clips, copy, 0.5)
    few = ChosenRows(table, rows[:200])
    assert psds1(clips[:20], few).value == psds1(clips[:20], copy[:200]).value


def test_the_library_s_warnings_about_itself_are_not_shown():
    code = "from sat_jax.metrics.psds import check_psds; check_psds()"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")


def test_without_the_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "sed_scores_eval", None)
    with pytest.raises(SatError, match=r"sed_scores_eval .*: pip install 'sat-jax\[strong\]'"):
        check_psds()


@pytest.mark.usefixtures("library")
def test_psds_needs_chunks_one_after_another():
    for start in ([0.0, 1.5], [0.0, 0.5]):
        clip = TimedClip(start=np.array(start), end=np.array([1.0, 2.0]), events=[Event(0, 0, 1)])
        with pytest.raises(SatError, match="without gaps and overlap"):
            psds1([clip], np.zeros((2, 1)))


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("measure", [segment_average_precision, psds1, onset_delays])
def test_what_does_not_fit(measure):
    clip = timed([0, 1, 2], [Event(1, 0.0, 1.0)])
    with pytest.raises(SatError, match="3 rows of scores do not fit 2 chunks"):
        measure([clip], np.zeros((3, 2)))
    with pytest.raises(SatError, match=r"class_index=1.* none of 1 classes"):
        measure([clip], np.zeros((2, 1)))


@pytest.mark.usefixtures("library")
def test_nothing_to_measure():
    with pytest.raises(SatError, match="no event lies in the 2 chunks"):
        segment_average_precision([timed([0, 1, 2], [Event(0, 2.0, 3.0)])], np.zeros((2, 1)))
    with pytest.raises(SatError, match="none of the 1 clips has an event"):
        psds1([timed([0, 1, 2], [])], np.zeros((2, 1)))


def test_one_threshold_a_class():
    with pytest.raises(SatError, match=r"thresholds of shape \[3\] do not fit 2 classes"):
        onset_delays([timed([0, 1], [])], np.zeros((1, 2)), np.zeros(3))


@pytest.mark.parametrize(
    ("start", "end", "message"),
    [
        ([], [], "0 starts and 0 ends"),
        ([0.0], [1.0, 2.0], "1 starts and 2 ends"),
        ([0.0, 1.0], [1.0, 1.0], "does not end after its start"),
        ([0.0], [math.nan], "does not end after its start"),
    ],
)
def test_times_that_are_none(start, end, message):
    with pytest.raises(SatError, match=message):
        TimedClip(start=np.array(start), end=np.array(end), events=[])
