"""Events against strong labels: sed_eval, and loops over all ways to match."""

import itertools
import warnings

import numpy as np
import pytest

from sat_jax.events import Rule, find_events
from sat_jax.labels import Event
from sat_jax.metrics.event_scores import Spans, match_events, score_events
from tests.support.strong_cases import random_clips, timed

CLASSES = 5
RULES = {1: Rule(on=0.55, min_off=0.0), 2: Rule(on=0.6, off=0.3), 3: Rule(on=0.5, min_on=35.0)}


def told_events(clip, index):
    times = np.append(clip.start, clip.end[-1])
    return find_events(clip.scores[:, index], times, RULES[index])


def is_near(told, label, collar):
    late = max(collar, 0.2 * (label[1] - label[0]))
    return abs(told[0] - label[0]) <= collar and abs(told[1] - label[1]) <= late


def most_matches(told, labelled, collar):
    """The best of all ways to give each told event a labelled one."""
    near = [[is_near(t, label, collar) for label in labelled] for t in told]
    places = [*range(len(labelled)), *[None] * len(told)]
    return max(
        sum(place is not None and near[row][place] for row, place in enumerate(chosen))
        for chosen in itertools.permutations(places, len(told))
    )


@pytest.mark.parametrize("seed", range(20))
def test_as_many_events_as_possible_are_matched(seed):
    rng = np.random.default_rng(seed)

    def draw(count):
        start = rng.integers(0, 6, count) / 2.0
        return Spans(rng.integers(0, 2, count), start, start + rng.integers(1, 8, count) / 2.0)

    told, labelled, collar = draw(5), draw(4), 0.5
    ours, theirs = match_events(told, labelled, collar)
    assert len(set(ours)) == len(ours) and len(set(theirs)) == len(theirs)
    expected = 0
    for clip in (0, 1):
        sides = [
            [each[1:] for each in zip(*spans, strict=True) if each[0] == clip]
            for spans in (told, labelled)
        ]
        expected += most_matches(*sides, collar)
    assert len(ours) == expected
    for row, column in zip(ours, theirs, strict=True):
        assert told.clip[row] == labelled.clip[column]
        pair = [(each.start[i], each.end[i]) for each, i in ((told, row), (labelled, column))]
        assert is_near(*pair, collar)


@pytest.mark.parametrize("seed", range(3))
def test_f1_equals_sed_eval_s(seed):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sed_eval = pytest.importorskip("sed_eval")
        container = pytest.importorskip("dcase_util").containers.MetaDataContainer
    clips = random_clips(seed, clips=30)
    scores = score_events(clips, RULES)
    assert scores.collar == max((clip.end - clip.start).max() for clip in clips)
    names = [str(index) for index in RULES]
    theirs = sed_eval.sound_event.EventBasedMetrics(
        event_label_list=names, t_collar=scores.collar, percentage_of_length=0.2
    )
    for number, clip in enumerate(clips):
        spans = [(e.onset, e.offset, str(e.class_index)) for e in clip.events]
        told = [(e.start, e.end, name) for name in names for e in told_events(clip, int(name))]
        lists = [
            container(
                [
                    {
                        "file": f"{number}.wav",
                        "onset": float(a),
                        "offset": float(b),
                        "event_label": c,
                    }
                    for a, b, c in each
                    if c in names
                ]
            )
            for each in (spans, told)
        ]
        theirs.evaluate(*lists)
    for index, name in zip(RULES, names, strict=True):
        counts = theirs.class_wise[name]
        ours = (scores.labelled[index], scores.told[index], scores.matched[index])
        assert ours == (counts["Nref"], counts["Nsys"], counts["Ntp"])
        assert 0 < counts["Ntp"] < counts["Nref"]
        alarms = 0
        for clip in clips:
            same = [(e.onset, e.offset) for e in clip.events if e.class_index == index]
            alarms += sum(
                all(min(e.end, offset) <= max(e.start, onset) for onset, offset in same)
                for e in told_events(clip, index)
            )
        assert scores.false_alarms[index] == alarms
    overall = theirs.results_class_wise_average_metrics()
    assert scores.macro_f1 == pytest.approx(overall["f_measure"]["f_measure"])
    totals = [sum(each[k] for each in theirs.class_wise.values()) for k in ("Ntp", "Nref", "Nsys")]
    assert scores.micro_f1 == pytest.approx(2 * totals[0] / (totals[1] + totals[2]))
    assert scores.num_classes == 3
    assert np.isnan(scores.f1[[0, 4]]).all()


def test_by_hand():
    borders = np.arange(0.0, 22.0, 2.0)
    scores = np.zeros((10, 2), np.float32)
    scores[[0, 1, 5, 8], 0] = 0.9  # Told from 0 s to 4 s, 10 s to 12 s, 16 s to 18 s.
    events = [Event(0, 1.5, 4.5), Event(0, 11.5, 19.0), Event(0, 25.0, 26.0)]
    clip = timed(borders, events, scores)
    found = score_events([clip, clip], {0: Rule(min_off=1.0), 1: Rule()})
    assert (found.collar, found.hours) == (2.0, pytest.approx(40 / 3600))
    counts = [found.labelled, found.told, found.matched, found.false_alarms]
    # The second is matched by no event: one ends too early, the other starts too late.
    assert [each.tolist() for each in counts] == [[6, 0], [6, 0], [2, 0], [0, 0]]
    assert (found.macro_f1, found.micro_f1) == (pytest.approx(1 / 3), pytest.approx(1 / 3))
    assert found.median_delay == pytest.approx(0.5)
    quiet = timed(borders, events[:1], scores)
    alarms = score_events([quiet], {0: Rule(min_off=1.0)})
    assert alarms.false_alarms_per_hour == pytest.approx(2 / (20 / 3600))
    nothing = score_events([clip], {1: Rule()})
    assert (nothing.num_classes, nothing.macro_f1, nothing.micro_f1) == (0, None, None)
    assert nothing.median_delay is None
