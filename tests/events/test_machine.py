"""Events chunk by chunk are those of the definition."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sat_jax.errors import SatError
from sat_jax.events.definition import find_events
from sat_jax.events.machine import EventMachine
from sat_jax.events.rules import Rule

LENGTHS = st.sampled_from([0.5, 1.0, 2.0, 0.25])


@st.composite
def rules(draw):
    on = draw(st.sampled_from([0.3, 0.5, 0.9]))
    min_on = draw(st.sampled_from([0.0, 1.0, 2.5, 4.0]))
    return Rule(
        on=on,
        off=draw(st.sampled_from([None, 0.1, on])),
        min_on=min_on,
        min_off=draw(st.sampled_from([0.0, 1.0, 3.0, 5.5])),
        max_on=max(draw(st.sampled_from([1.0, 4.0, 7.5, 3600.0])), min_on),
        cooldown=draw(st.sampled_from([0.0, 2.0, 10.0])),
        smooth=draw(st.sampled_from([1, 3, 5])),
    )


@st.composite
def tracks(draw):
    scores = draw(st.lists(st.sampled_from([0.0, 0.2, 0.4, 0.6, 0.95]), max_size=40))
    lengths = draw(st.lists(LENGTHS, min_size=len(scores), max_size=len(scores)))
    return np.array(scores, np.float32), np.concatenate([[0.0], np.cumsum(lengths)])


def stream(scores, times, rule):
    machine, notices = EventMachine(rule, update_every=2.0), []
    for start, end, score in zip(times[:-1], times[1:], scores, strict=True):
        notices += [(float(end), notice) for notice in machine.push(start, end, score)]
    return [*notices, *((None, notice) for notice in machine.finish())]


@settings(max_examples=2_000, deadline=None, derandomize=True)
@given(tracks(), rules())
def test_the_machine_follows_the_definition(track, rule):
    scores, times = track
    notices = stream(scores, times, rule)
    ended = [notice.event for _, notice in notices if notice.kind == "end"]
    expected = find_events(scores, times, rule)
    assert len(ended) == len(expected)
    for ours, theirs in zip(ended, expected, strict=True):
        assert ours._replace(mean=0.0) == theirs._replace(mean=0.0)
        assert ours.mean == pytest.approx(theirs.mean, rel=1e-6)
    # Announced in order: start, updates, end; each event as soon as it is certain.
    kinds = "".join(notice.kind[0] for _, notice in notices)
    assert all(part.strip("u") == "s" for part in kinds.split("e")[:-1])
    assert not kinds.split("e")[-1]
    starts = [(now, notice.event) for now, notice in notices if notice.kind == "start"]
    for (now, event), theirs in zip(starts, expected, strict=True):
        assert (now, event.start) == (theirs.announced, theirs.start)
    for now, notice in notices:
        if notice.kind == "end" and notice.event.reason == "quiet":
            silence = now - notice.event.end
            assert silence >= rule.min_off


def test_by_hand():
    scores = np.array([0.1, 0.9, 0.4, 0.2, 0.7, 0.1, 0.1, 0.1, 0.6], np.float32)
    times = np.arange(10) * 2.0
    first, second = find_events(scores, times, Rule(on=0.5))
    # 0.4 is still heard: off is 0.27. The gap of 2 s is under 3 s.
    assert (first.start, first.end, first.chunks, first.reason) == (2.0, 10.0, 3, "quiet")
    assert (first.peak, first.mean) == (pytest.approx(0.9), pytest.approx(2.0 / 3))
    assert (second.start, second.end, second.reason) == (16.0, 18.0, "closed")
    assert not find_events(scores, times, Rule(on=0.5, min_on=8.5))
    [muted] = [e for e in find_events(scores, times, Rule(cooldown=10.0)) if e.muted]
    assert muted.start == 16.0


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"on": 0.0}, "on=0"),
        ({"off": 0.6}, "off=0.6"),
        ({"min_on": -1.0}, "min_on=-1"),
        ({"min_on": 9.0, "max_on": 5.0}, "max_on=5: use at least 9 s"),
        ({"smooth": 2}, "smooth=2"),
    ],
)
def test_wrong_rules(fields, named):
    with pytest.raises(SatError, match=named):
        Rule(**fields)
