"""The tracker tells the events of the definition, without those of classes above others."""

import dataclasses
import json
from datetime import datetime, timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sat_jax.errors import SatError
from sat_jax.events import EventTracker, Level, Rule, Watch, find_events, watched_sounds
from sat_jax.events.watching import WatchedSound
from sat_jax.labels import audioset_labels

LABELS = [label.name for label in audioset_labels()]
ANIMAL, DOG, BARK, GROWL, CAT = (
    LABELS.index(name) for name in ("Animal", "Dog", "Bark", "Growling", "Cat")
)
ABOVE = {"a": (), "b": ("a",), "c": ("a",), "d": ("a", "b"), "e": ("a", "b", "c"), "g": ()}
"""A hierarchy in which e has two parents. g is a group of b and c."""
ORDER = "edcbag"


@st.composite
def rules(draw):
    min_on = draw(st.sampled_from([0.0, 0.0, 1.0, 3.0]))
    return Rule(
        min_on=min_on,
        off=draw(st.sampled_from([None, 0.5])),
        min_off=draw(st.sampled_from([0.0, 1.0, 3.0, 4.5])),
        max_on=max(draw(st.sampled_from([4.0, 3600.0])), min_on),
        cooldown=draw(st.sampled_from([0.0, 5.0])),
        smooth=draw(st.sampled_from([1, 1, 3])),
    )


@st.composite
def streams(draw):
    count = draw(st.integers(0, 24))
    scores = st.lists(st.sampled_from([0.0, 0.4, 0.6, 0.9]), min_size=5, max_size=5)
    probs = [draw(scores) for _ in range(count)]
    lengths = [draw(st.sampled_from([1.0, 2.0])) for _ in range(count)]
    return np.array(probs, np.float32).reshape(-1, 5), np.cumsum([0.0, *lengths])


def make_sounds(rule_of):
    members = {name: (index,) for index, name in enumerate("abcde")} | {"g": (1, 2)}
    return [
        WatchedSound(
            name=name,
            key=name if name == "g" else str(members[name][0]),
            classes=members[name],
            mid="",
            above=ABOVE[name],
            rule=rule_of[name],
        )
        for name in ORDER
    ]


def defined_events(sounds, probs, times):
    """The definition of folding, with the whole recording at hand."""
    found, covered_by = {}, {}
    for sound in sounds:
        scores = probs[:, list(sound.classes)].max(1)
        covered = np.zeros(len(scores), bool)
        for name, events in found.items():
            if sound.name in ABOVE[name]:
                for event in events:
                    covered |= (times[1:] >= event.announced) & (times[:-1] < event.end)
        events, last_end, first = [], -np.inf, 0
        for k in range(len(scores) + 1):
            if k < len(scores) and not covered[k]:
                continue
            part = find_events(scores[first:k], times[first : k + 1], sound.rule, last_end=last_end)
            if part and part[-1].reason == "closed" and k < len(scores):
                part[-1] = part[-1]._replace(reason="refined")
            events += part
            last_end, first = (part[-1].end if part else last_end), k + 1
        found[sound.name], covered_by[sound.name] = events, covered
    return found


def run_tracker(sounds, probs, times):
    tracker = EventTracker(sounds, session="s", sample_rate=100)
    messages = []
    for start, end, row in zip(times[:-1], times[1:], probs, strict=True):
        messages += tracker.push(float(start), float(end), row)
    return messages + tracker.finish(float(times[-1]))


@settings(max_examples=600, deadline=None, derandomize=True)
@given(streams(), st.fixed_dictionaries({name: rules() for name in ORDER}))
def test_events_are_those_of_the_definition(stream, rule_of):
    probs, times = stream
    sounds = make_sounds(rule_of)
    messages = run_tracker(sounds, probs, times)
    expected = defined_events(sounds, probs, times)
    for sound in sounds:
        own = [message for message in messages if message.label == sound.name]
        ends = [message for message in own if message.kind == "end"]
        assert [(m.start, m.end, m.reason, m.chunks, m.muted) for m in ends] == [
            (e.start, e.end, e.reason, e.chunks, e.muted) for e in expected[sound.name]
        ]
        # Each event is told from its start to its end, under one name.
        starts = [message for message in own if message.kind == "start"]
        assert [m.id for m in starts] == [m.id for m in ends]
        assert all(m.id == f"s.{round(100 * m.start)}.{sound.key}" and m.delay >= 0.0 for m in own)


def audioset_tracker(**settings):
    sounds = watched_sounds(Watch(**settings), LABELS)
    began = datetime(2026, 11, 29, 15, 0, 0)
    return EventTracker(
        sounds, session="7f3a", sample_rate=16_000, clock=lambda s: began + timedelta(seconds=s)
    )


def scores_of(**by_name):
    probs = np.zeros(len(LABELS), np.float32)
    for name, score in by_name.items():
        probs[LABELS.index(name)] = score
    return probs


def test_a_dog_is_told_once():
    tracker = audioset_tracker()
    told = tracker.push(0.0, 2.0, scores_of(Animal=0.9, Dog=0.9))
    assert [(m.kind, m.label, m.parents) for m in told] == [("start", "Dog", ("Animal",))]
    told = tracker.push(2.0, 4.0, scores_of(Animal=0.9, Dog=0.9, Bark=0.9))
    assert [(m.kind, m.label) for m in told] == [("start", "Bark"), ("end", "Dog")]
    assert (told[1].reason, told[1].by, told[1].end) == ("refined", "Bark", 2.0)
    assert tracker.on == {"Animal", "Dog", "Bark"}
    for k in (2, 3):  # The dog goes on without barking.
        assert not tracker.push(2.0 * k, 2.0 * k + 2.0, scores_of(Animal=0.9, Dog=0.8))[2:]
    told = tracker.finish(8.0)
    ends = [(m.label, m.start, m.end, m.parents) for m in told if m.kind == "end"]
    assert ends == [("Dog", 4.0, 8.0, ("Animal",))]
    everything = audioset_tracker(parents="all")
    told = everything.push(0.0, 2.0, scores_of(Animal=0.9, Dog=0.9, Bark=0.9))
    assert {m.label for m in told} == {"Animal", "Dog", "Bark"}


def test_a_message_as_json():
    tracker = audioset_tracker(watch=["Bark", "Dog"], rule={"min_off": 3.0})
    [start] = tracker.push(34.0, 36.0, scores_of(Bark=0.88, Dog=0.9))
    assert json.loads(json.dumps(start.as_json())) == {
        "type": "event",
        "kind": "start",
        "id": f"7f3a.544000.{BARK}",
        "class": BARK,
        "label": "Bark",
        "mid": "/m/05tny_",
        "start": 34.0,
        "time": "2026-11-29T15:00:34.000",
        "resolution": 2.0,
        "delay": 2.0,
        "score": 0.88,
        "peak": 0.88,
        "mean": 0.88,
        "chunks": 1,
        "parents": ["Dog"],
        "muted": False,
    }
    tracker.push(36.0, 38.0, scores_of())
    [end] = tracker.push(38.0, 40.0, scores_of())
    ended = end.as_json()
    assert ended["resolution"] == 2.0
    assert (ended["end"], ended["duration"], ended["reason"]) == (36.0, 2.0, "quiet")


def test_the_resolution_is_that_of_whole_chunks():
    tracker = audioset_tracker()
    told = tracker.push(0.0, 2.0, scores_of(Dog=0.9))
    told += tracker.push(2.0, 2.5, scores_of(Dog=0.9, Meow=0.9)) + tracker.finish(2.5)
    assert {(m.kind, m.label) for m in told} == {
        (kind, name) for kind in ("start", "end") for name in ("Dog", "Meow")
    }
    assert {m.resolution for m in told} == {2.0}


def test_events_to_come_do_not_start_before_what_is_unfinished():
    tracker = audioset_tracker(watch=["Dog", "Bark", "Meow"], by_name={"Meow": {"min_on": 5.0}})
    assert tracker.unfinished_since == np.inf
    tracker.push(0.0, 2.0, scores_of(Meow=0.9))
    tracker.push(2.0, 4.0, scores_of(Meow=0.9, Dog=0.9))
    assert tracker.unfinished_since == 0.0  # The cat is not told yet.
    tracker.push(4.0, 6.0, scores_of(Dog=0.9))
    tracker.push(6.0, 8.0, scores_of(Dog=0.9))
    assert tracker.unfinished_since == 2.0
    tracker.finish(8.0)
    assert tracker.unfinished_since == np.inf


def test_groups_and_loud_sounds():
    tracker = audioset_tracker(watch=["pets", "loud"])
    [start] = tracker.push(0.0, 2.0, scores_of(Meow=0.7))
    assert (start.label, start.index, start.id) == ("pets", None, "7f3a.0.pets")
    levels = [0.02, 0.2, 0.07] + [0.01] * 31
    told = [
        m
        for k, rms in enumerate(levels)
        for m in tracker.push_level(Level(k / 10, k / 10 + 0.1, rms, rms))
    ]
    assert [(m.kind, round(m.start, 1)) for m in told] == [("start", 0.1), ("end", 0.1)]
    assert told[1].end == pytest.approx(0.3)


def test_thresholds_of_the_model():
    thresholds = np.full(len(LABELS), 0.2)
    thresholds[DOG] = 1.0  # Never learned.
    sounds = {s.name: s for s in watched_sounds(Watch(), LABELS, thresholds)}
    assert "Dog" not in sounds and "Silence" not in sounds and "Echo" not in sounds
    assert sounds["Cat"].rule.on == 0.2
    assert set(sounds["Bark"].above) == {"Animal", "Domestic animals, pets"}
    chosen = watched_sounds(
        Watch(watch=["*Dog", "Silence"], by_name={"Dog": {"on": 0.7, "off": 0.1}}),
        LABELS,
        thresholds,
    )
    by_name = {s.name: s.rule for s in chosen}
    assert (by_name["Dog"].on, by_name["Dog"].off, by_name["Silence"].on) == (0.7, 0.1, 0.2)


def test_an_event_keeps_the_time_that_was_told():
    zero = [datetime(2026, 11, 29, 15, 0, 9)]
    [sound] = watched_sounds(Watch(watch=["Dog"], rule={"on": 0.5}), LABELS)
    tracker = EventTracker(
        [sound], session="7f3a", sample_rate=16_000, clock=lambda s: zero[0] + timedelta(seconds=s)
    )
    told = tracker.push(0.0, 2.0, scores_of(Dog=0.9))
    zero[0] -= timedelta(seconds=3)  # Now the clock knows better.
    told += tracker.finish(2.0)
    assert [message.time for message in told] == 2 * ["2026-11-29T15:00:09.000"]
    [again, _] = tracker.push(4.0, 6.0, scores_of(Dog=0.9)) + tracker.finish(6.0)
    assert again.time == "2026-11-29T15:00:10.000"


def test_each_class_comes_after_those_below_it():
    places = {s.name: number for number, s in enumerate(watched_sounds(Watch(), LABELS))}
    for sound in watched_sounds(Watch(), LABELS):
        assert all(places[name] > places[sound.name] for name in sound.above)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"watch": ["Dogg"]}, "Dogg.*Dog"),
        ({"parents": "some"}, "parents='some'"),
        ({"rule": {"min": 3}}, "unknown setting min"),
        ({"by_name": {"Dog": {"on": 2.0}}}, "rule of Dog: on=2"),
        ({"rule": {"on": 2.0}}, "rule of all sounds: on=2"),
        ({"groups": {"door": ["Doorbell", "Knokc"]}}, "groups.door: .*Knock"),
        ({"groups": {"door": []}}, "groups.door"),
        ({"groups": {"Dog": ["Bark"]}}, "groups.Dog"),
        ({"groups": {"loud": ["Bark"]}}, "groups.loud"),
        ({"by_name": {"Dogg": {"on": 0.5}}}, "Dogg"),
        ({"by_name": {"pets": {"on": 0.5}}}, "pets"),
    ],
)
def test_wrong_settings(fields, named):
    with pytest.raises(SatError, match=named):
        watched_sounds(dataclasses.replace(Watch(), **fields), LABELS)
