"""The best rules of all that are tried, by loops over the definition of events."""

import itertools

import numpy as np
import pytest

from sat_jax.errors import SatError
from sat_jax.events import Rule, find_events
from sat_jax.labels import Event
from sat_jax.metrics import rule_search
from sat_jax.metrics.event_scores import score_events
from sat_jax.metrics.rule_search import search_rules
from tests.support.strong_cases import timed

CHUNK = 0.5
LEVELS = np.array([0.05, 0.2, 0.4, 0.6, 0.8], np.float32)


def make_clips(seed, clips=6, chunks=16, classes=3):
    """Events with scores that flicker, and short false alarms. The last class has no events."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(clips):
        borders = CHUNK * np.arange(chunks + 1)
        scores, events = rng.choice(LEVELS[:3], (chunks, classes), p=[0.8, 0.15, 0.05]), []
        for index in range(classes - 1):
            first, length = int(rng.integers(0, chunks // 2)), int(rng.integers(3, 8))
            scores[first : first + length, index] = rng.choice(LEVELS[1:], length)
            events.append(Event(index, CHUNK * first + 0.1, CHUNK * (first + length)))
            scores[int(rng.integers(chunks)), index] = 0.8
        made.append(timed(borders, events, scores.astype(np.float32)))
    return made


@pytest.mark.parametrize("seed", range(2))
def test_no_rules_are_better(seed):
    clips = make_clips(seed)
    found = search_rules(clips)
    assert set(found) == {0, 1}
    best = 0.0
    # What is tried: all scores, and times between two numbers of chunks.
    for gap, min_on, min_off in itertools.product(
        (0.0, 1.0, 2.0), (0.0, 0.75, 1.25, 2.25), (0.25, 1.25, 2.25, 3.25, 5.25, 10.25)
    ):
        one = [
            max(
                score_events(
                    clips,
                    {index: Rule(on=on, off=off_of(on, gap), min_on=min_on, min_off=min_off)},
                ).macro_f1
                for on in LEVELS.astype(float).round(4)
            )
            for index in (0, 1)
        ]
        best = max(best, sum(one) / 2)
    assert score_events(clips, found).macro_f1 == pytest.approx(best)
    assert best > score_events(clips, dict.fromkeys((0, 1), Rule())).macro_f1
    assert len({(rule.min_on, rule.min_off) for rule in found.values()}) == 1


def off_of(on, gap):
    return np.floor(1e4 / (1 + np.exp(gap) * (1 - on) / on) + 1e-6) / 1e4


@pytest.mark.parametrize("seed", range(4))
def test_events_of_the_search_are_those_of_the_definition(seed):
    clips = make_clips(seed)
    track = rule_search._Track(clips)
    scores = np.concatenate([clip.scores[:, 0] for clip in clips])
    for on, gap, min_on, min_off in itertools.product(
        (0.2, 0.6), (0.0, 2.0), (0.0, 1.25), (0.25, 1.25)
    ):
        rule = Rule(on=on, off=off_of(on, gap), min_on=min_on, min_off=min_off)
        expected = [
            (number, event.start, event.end)
            for number, clip in enumerate(clips)
            for event in find_events(clip.scores[:, 0], np.append(clip.start, clip.end[-1]), rule)
        ]
        found = track.events(track.heard(scores, on, gap), min_on, min_off)
        assert list(zip(*(each.tolist() for each in found), strict=True)) == expected


def test_many_scores_are_thinned_out():
    rng = np.random.default_rng(0)
    borders = 2.0 * np.arange(201)
    events = [Event(0, start, start + 10.0) for start in range(20, 380, 40)]
    scores = rng.random((200, 1)).astype(np.float32) * 0.5
    for event in events:
        scores[int(event.onset / 2) : int(event.offset / 2)] += 0.4
    [rule] = search_rules([timed(borders, events, scores, classes=1)]).values()
    assert score_events([timed(borders, events, scores)], {0: rule}).macro_f1 > 0.8
    assert rule.on == round(rule.on, 4) and rule.off == round(rule.off, 4)


def test_events_that_no_rule_finds():
    clip = timed([0, 1, 2, 3], [Event(0, 0.0, 30.0)], np.full((3, 2), 0.5, np.float32))
    with pytest.raises(SatError, match="rule"):
        search_rules([clip])
