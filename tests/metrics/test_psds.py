"""PSDS1 against its definition, written out in loops."""

import dataclasses
import itertools
import statistics
import subprocess
import sys

import numpy as np
import pytest

from sat_jax.errors import SatError
from sat_jax.labels import Event
from sat_jax.metrics import psds
from sat_jax.metrics.psds import check_psds, psds1
from sat_jax.metrics.strong import TimedClip
from tests.support.strong_cases import random_clips, segment_targets, timed


@pytest.fixture(autouse=True)
def _library():
    """Skips where the library is missing: it needs a C++ compiler."""
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


def psd_counts(clips, index, threshold):
    """Events found, events and false alarms of one class at one threshold, in whole seconds."""
    hits = events = false_alarms = 0
    for clip in clips:
        borders = [int(border) for border in (*clip.start, clip.end[-1])]
        detections = runs(clip.scores[:, index] >= threshold, borders)
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


def psds_by_definition(clips, classes):
    """Area under mean minus deviation of the classes' best hit rates, up to 100 an hour."""
    hours = sum(clip.end[-1] for clip in clips) / 3600
    curves = []
    for index in classes:
        points = [(0.0, 0.0)]
        for threshold in np.unique(np.concatenate([clip.scores for clip in clips])):
            hits, events, false_alarms = psd_counts(clips, index, threshold)
            points.append((false_alarms / hours, hits / events))
        curves.append(points)
    rates = [*sorted({rate for points in curves for rate, _ in points if rate <= 100.0}), 100.0]
    area = 0.0
    for rate, after in itertools.pairwise(rates):
        best = [max(share for at, share in points if at <= rate) for points in curves]
        area += max(0.0, statistics.fmean(best) - statistics.pstdev(best)) * (after - rate)
    return area / 100.0


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("block_values", [1, 100, 10**6])
def test_psds_follows_its_definition(seed, block_values, monkeypatch):
    monkeypatch.setattr(psds, "_BLOCK_VALUES", block_values)
    clips = random_clips(seed)
    measured = psds1(clips)
    assert measured == pytest.approx(psds_by_definition(clips, range(1, 5)), rel=1e-9)
    assert 0.02 < measured < 0.9


@pytest.mark.parametrize("index", range(1, 5))
def test_psds_of_a_single_class(index):
    clips = [
        dataclasses.replace(clip, events=[e for e in clip.events if e.class_index == index])
        for clip in random_clips(0)
    ]
    assert psds1(clips) == pytest.approx(psds_by_definition(clips, [index]), rel=1e-9)


def test_psds_of_perfect_and_reversed_scores():
    perfect, reversed_ = [], []
    for events in ([Event(0, 1.0, 2.0), Event(1, 0.0, 2.0)], [Event(1, 2.0, 3.0)], []):
        start = np.arange(4.0)
        targets = segment_targets(events, start, start + 1, 3)
        perfect.append(timed(range(5), events, 1.0 * targets))
        reversed_.append(timed(range(5), events, 1.0 - targets))
    assert (psds1(perfect), psds1(reversed_)) == (1.0, 0.0)


def test_rounded_borders_are_neither_gaps_nor_overlap():
    # Products and sums of 0.16 s differ by rounding.
    start, end = np.arange(60) * 0.16, np.cumsum(np.full(60, 0.16))
    scores = np.zeros((60, 2), np.float32)
    scores[16:48, 1] = 0.75
    events = [Event(1, 16 * 0.16, 48 * 0.16)]
    assert psds1([TimedClip(start=start, end=end, scores=scores, events=events)]) == 1.0


@pytest.mark.parametrize("start", [[0.0, 1.5], [0.0, 0.5]])
def test_gaps_and_overlap_are_refused(start):
    clip = TimedClip(
        start=np.array(start),
        end=np.array([1.0, 2.0]),
        scores=np.zeros((2, 1)),
        events=[Event(0, 0, 1)],
    )
    with pytest.raises(SatError, match=f"1 s.*{start[1]:g} s"):
        psds1([clip])


def test_clips_without_events():
    with pytest.raises(SatError, match="1 clips"):
        psds1([timed([0, 1, 2], [])])


def test_the_library_s_warnings_about_itself_are_not_shown():
    code = "from sat_jax.metrics.psds import check_psds; check_psds()"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")


def test_without_the_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "sed_scores_eval", None)
    with pytest.raises(SatError, match=r"sat-jax\[strong\]"):
        check_psds()
