"""Metrics on strong labels against their definitions, written out in loops."""

import math
import statistics
import tracemalloc

import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st

from sat_jax.errors import SatError
from sat_jax.labels import Event
from sat_jax.metrics import strong
from sat_jax.metrics.strong import TimedClip, onset_delays, overlaps, segment_average_precision
from tests.support.strong_cases import random_clips, segment_targets, timed


@settings(max_examples=100, deadline=None)
@given(
    st.integers(1, 20000),
    st.integers(1, 12),
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 200000), st.integers(1, 60000))),
)
def test_a_chunk_overlaps_an_event_if_they_share_samples(size, chunks, events):
    start = np.arange(chunks) * (size / 16000)  # Sums and products round differently.
    end = np.cumsum(np.full(chunks, size / 16000))
    in_seconds = [Event(c, on / 16000, (on + length) / 16000) for c, on, length in events]
    wanted = np.zeros((chunks, 4), bool)
    for chunk in range(chunks):
        for index, on, length in events:
            shared = min((chunk + 1) * size, on + length) - max(chunk * size, on)
            wanted[chunk, index] |= shared > 0
    np.testing.assert_array_equal(segment_targets(in_seconds, start, end, 4), wanted)


def test_touching_is_not_overlapping():
    start, end = np.array([0.0, 0.1 + 0.2]), np.array([0.1 + 0.2, 0.6])
    assert overlaps(Event(0, 0.3, 0.6), start, end).tolist() == [False, True]
    assert overlaps(Event(0, 0.0, 0.3), start, end).tolist() == [True, False]
    assert overlaps(Event(0, 0.29, 0.31), start, end).tolist() == [True, True]
    assert overlaps(Event(0, 0.6, 0.7), start, end).tolist() == [False, False]


@pytest.fixture(params=[None, 1, 100], ids=["at once", "single classes", "blocks"])
def blocks(request, monkeypatch):
    """Limits how many scores are read at once."""
    if request.param:
        monkeypatch.setattr(strong, "_BLOCK_VALUES", request.param)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.usefixtures("blocks")
def test_segment_precision_equals_that_of_scikit_learn(seed):
    clips = random_clips(seed)
    scores = np.concatenate([clip.scores for clip in clips])
    measured = segment_average_precision(clips)
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


def test_segment_precision_of_a_single_clip():
    """Ranks 1 and 3 of four chunks are positive: (1/1 + 2/3) / 2."""
    scores = np.float32([[0.9, 0.1], [0.8, 0.2], [0.6, 0.4], [0.7, 0.3]])
    clip = timed([0, 1, 2, 3, 4], [Event(0, 0.5, 1.0), Event(0, 3.0, 3.5)], scores)
    measured = segment_average_precision([clip])
    np.testing.assert_allclose(measured.average_precision, [5 / 6, np.nan], rtol=1e-12)
    assert measured.mean_average_precision == pytest.approx(5 / 6, rel=1e-12)
    assert (measured.num_segments, measured.positives.tolist()) == (4, [2, 0])


def delays_by_definition(clips, threshold):
    for clip in clips:
        scores = clip.scores
        for event in clip.events:
            for chunk, (start, end) in enumerate(zip(clip.start, clip.end, strict=True)):
                least = np.float32(np.broadcast_to(threshold, scores.shape[1])[event.class_index])
                overlapping = start < event.offset and end > event.onset
                if overlapping and scores[chunk, event.class_index] >= least:
                    yield end - event.onset
                    break
            else:
                yield None


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("threshold", [0.75, np.linspace(0.5, 1.0, 5)])
def test_onset_delays_follow_their_definition(seed, threshold):
    clips = random_clips(seed)
    measured = onset_delays(clips, threshold)
    wanted = list(delays_by_definition(clips, threshold))
    found = [delay for delay in wanted if delay is not None]
    assert 0 < len(found) < len(wanted)
    assert (measured.events, measured.detected) == (len(wanted), len(found))
    assert measured.share_detected == len(found) / len(wanted)
    assert measured.median == statistics.median(found)
    assert measured.mean == pytest.approx(statistics.fmean(found), rel=1e-12)


def test_a_detection_is_known_at_the_end_of_its_chunk():
    scores = np.float32([[0.9], [0.3], [0.29999998], [0.9]])
    events = [Event(0, 1.25, 3.5), Event(0, 2.0, 2.5), Event(0, 5.0, 6.0)]
    measured = onset_delays([timed([0, 1, 2, 3, 4], events, scores)], 0.3)
    assert (measured.events, measured.detected, measured.mean) == (3, 1, 0.75)


def test_without_events_there_is_no_delay():
    measured = onset_delays([timed([0, 1], [])])
    assert (measured.share_detected, measured.median, measured.mean) == (None, None, None)


def test_memory_mapped_scores_are_not_copied_at_once(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    shape = (500, 10, 400)
    table = np.memmap(tmp_path / "scores", np.float32, "w+", shape=shape)
    table[:] = rng.random(shape, np.float32)
    events = [[Event(index % 3, 1.0, 4.0)] for index in range(len(table))]
    monkeypatch.setattr(strong, "_BLOCK_VALUES", 5_000)
    clips = [
        timed(range(11), of_clip, of_scores)
        for of_clip, of_scores in zip(events, table, strict=True)
    ]
    tracemalloc.start()
    segments, onsets = segment_average_precision(clips), onset_delays(clips)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < table.nbytes / 4
    copies = [timed(range(11), clip.events, np.array(clip.scores)) for clip in clips]
    np.testing.assert_array_equal(
        segments.average_precision, segment_average_precision(copies).average_precision
    )
    assert onsets == onset_delays(copies)


def test_no_event_overlaps_a_chunk():
    with pytest.raises(SatError, match="1 clips"):
        segment_average_precision([timed([0, 1, 2], [Event(0, 2.0, 3.0)])])


def test_one_threshold_a_class():
    with pytest.raises(SatError, match=r"\[3\]"):
        onset_delays([timed([0, 1], [])], np.zeros(3))


@pytest.mark.parametrize(
    ("start", "end", "rows"), [([], [], 0), ([0.0], [1.0, 2.0], 1), ([0.0], [1.0], 3)]
)
def test_lengths_that_differ(start, end, rows):
    named = f"{len(start)} .*{len(end)} .*{rows} "
    with pytest.raises(SatError, match=named):
        TimedClip(start=np.array(start), end=np.array(end), scores=np.zeros((rows, 2)), events=[])


@pytest.mark.parametrize("borders", [[0.0, 1.0, 1.0], [0.0, math.nan]])
def test_chunks_without_length(borders):
    last = len(borders) - 2
    with pytest.raises(SatError, match=f"chunk {last} .*{borders[-1]:g} s"):
        timed(borders, [])


def test_events_of_other_classes():
    with pytest.raises(SatError, match="class_index=2"):
        timed([0, 1], [Event(2, 0.0, 1.0)])
