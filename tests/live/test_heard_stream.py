"""A stream's chunks are the tagger's, its events are those of the definition, gaps included."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest

from sat_jax.config import ModelConfig
from sat_jax.events import EventMessage, Level, Rule, Watch, find_events, watched_sounds
from sat_jax.labels import default_label_names
from sat_jax.live.heard_stream import HeardStream
from sat_jax.models.transformer import init_variables
from sat_jax.streaming.scored_chunk import ScoredChunk
from sat_jax.tagger import Tagger
from sat_jax.weights.checkpoint import Checkpoint

RATE = 16_000
HOP = 2 * RATE
NOISE = (0.1 * np.random.default_rng(0).standard_normal(20 * RATE)).astype(np.float32)


@pytest.fixture(scope="module")
def tagger() -> Tagger:
    config = ModelConfig(
        width=64, depth=1, num_classes=5, target_length=192, cache_length=192, pad_last=True
    )
    variables = jax.jit(init_variables, static_argnums=0)(config, jax.random.key(0))
    labels = default_label_names(5)
    return Tagger(Checkpoint(config=config, variables=variables, labels=labels))


class LoudTagger:
    """Its only class is as probable as a chunk's loudest sample is large."""

    def __init__(self) -> None:
        self.framing = SimpleNamespace(hop=HOP)
        self.config = SimpleNamespace(frontend=SimpleNamespace(sample_rate=RATE, hop_length=160))
        self.labels = ("Tone",)

    def init(self) -> SimpleNamespace:
        return SimpleNamespace(sound=np.zeros(0, np.float32), ready=[False])

    def step(self, samples, state):
        sound = np.concatenate([state.sound, samples])
        ready = len(sound) == HOP
        state = SimpleNamespace(sound=sound[:0] if ready else sound, ready=[ready])
        return np.abs(sound).max(keepdims=True)[None] if ready else np.zeros((1, 1)), state

    def finish(self, state):
        left = [np.abs(state.sound).max()] if len(state.sound) else []
        return np.array(left, np.float32).reshape(-1, 1, 1)


def tones(*loud: int, seconds: int) -> np.ndarray:
    """Returns a sound that is loud in these chunks."""
    sound = np.full(seconds * RATE, 0.01, np.float32)
    for chunk in loud:
        sound[chunk * HOP : (chunk + 1) * HOP] = 0.9
    return sound


def stream_of_tones(*watch: str) -> HeardStream:
    sounds = watched_sounds(Watch(watch=watch), ["Tone"])
    return HeardStream(LoudTagger(), sounds, session="s")


def push(stream: HeardStream, sound: np.ndarray, size: int = 3_333) -> list:
    heard = []
    for first in range(0, len(sound), size):
        heard += stream.push(sound[first : first + size], arrived=1e9)
    return heard


def chunks(heard: list) -> list[ScoredChunk]:
    return [each for each in heard if isinstance(each, ScoredChunk)]


def events(heard: list) -> list[tuple]:
    found = [each for each in heard if isinstance(each, EventMessage)]
    return [(m.kind, m.start, *((m.end, m.reason) if m.kind == "end" else ())) for m in found]


def assert_same_chunks(found: list[ScoredChunk], expected: list[ScoredChunk], later: float = 0.0):
    assert [(c.start, c.end) for c in found] == [
        pytest.approx((c.start + later, c.end + later)) for c in expected
    ]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one.probs, other.probs)


@pytest.mark.parametrize("size", [1_600, 3_333, 50_000])
def test_chunks_are_those_of_the_tagger(size, tagger) -> None:
    stream = HeardStream(tagger, (), session="s")
    sound = NOISE[: 5 * RATE + 77]
    found = chunks([*push(stream, sound, size), *stream.interrupt("closed")])
    assert_same_chunks(found, list(tagger.stream([sound])))


def test_a_short_gap_is_heard_as_silence(tagger) -> None:
    stream = HeardStream(tagger, (), session="s")
    heard = push(stream, NOISE[: 3 * RATE])
    heard += [*stream.lose(3.5), *push(stream, NOISE[3 * RATE : 8 * RATE])]
    silence = np.zeros(round(3.5 * RATE), np.float32)
    whole = np.concatenate([NOISE[: 3 * RATE], silence, NOISE[3 * RATE : 8 * RATE]])
    assert_same_chunks(chunks(heard), list(tagger.stream([whole]))[:5])


def test_after_a_long_gap_the_stream_begins_anew(tagger) -> None:
    stream = HeardStream(tagger, (), session="s")
    heard = [*push(stream, NOISE[: 3 * RATE]), *stream.lose(12.25)]
    before = len(chunks(heard))
    heard += push(stream, NOISE[3 * RATE : 8 * RATE])
    assert_same_chunks(chunks(heard)[:before], list(tagger.stream([NOISE[: 3 * RATE]])))
    again = list(tagger.stream([NOISE[3 * RATE : 8 * RATE]]))[:2]
    assert_same_chunks(chunks(heard)[before:], again, later=15.25)
    assert stream.seconds == 20.25


def test_events_are_those_of_the_definition() -> None:
    stream = stream_of_tones()
    sound = tones(2, 3, 7, 9, seconds=24)
    heard = [*push(stream, sound), *stream.interrupt("closed")]
    scores = np.abs(sound).reshape(-1, HOP).max(1)[1:]
    expected = find_events(scores, 2.0 + 2.0 * np.arange(12), Rule())
    found = [each for each in heard if isinstance(each, EventMessage) and each.kind == "end"]
    assert [(m.start, m.end, m.reason) for m in found] == [
        (e.start, e.end, e.reason) for e in expected
    ]
    assert len(found) == 2 and found[0].id == f"s.{2 * HOP}.0"


def test_the_first_chunk_makes_no_event() -> None:
    stream = stream_of_tones()
    assert events(push(stream, tones(0, seconds=4))) == []
    list(stream.lose(20.0))
    assert events(push(stream, tones(0, 1, seconds=4))) == [("start", 26.0)]


def test_a_chunk_that_is_mostly_lost_makes_no_event() -> None:
    stream = stream_of_tones()
    push(stream, tones(seconds=4))
    heard = [*push(stream, tones(0, seconds=2)[: RATE // 2]), *stream.lose(1.5)]
    assert events(heard) == []
    heard = [*push(stream, tones(0, seconds=2)[: RATE + 1]), *stream.lose(1.0)]
    assert events(heard) == [("start", 6.0)]


def test_an_event_ends_in_a_gap() -> None:
    stream = stream_of_tones()
    assert events(push(stream, tones(1, seconds=4))) == [("start", 2.0)]
    assert events(list(stream.lose(4.0))) == [("end", 2.0, 4.0, "quiet")]
    stream = stream_of_tones()
    push(stream, tones(1, seconds=4))
    assert events(list(stream.lose(40.0))) == [("end", 2.0, 4.0, "gap")]
    assert events(list(stream.interrupt("closed"))) == []


def test_the_rest_of_a_stream_counts_from_half_a_patch_on() -> None:
    for samples, expected in ((1_279, []), (1_280, [("start", 4.0)])):
        stream = stream_of_tones()
        push(stream, np.concatenate([tones(seconds=4), tones(0, seconds=2)[:samples]]))
        assert events(list(stream.interrupt("closed")))[:1] == expected


def test_levels_come_each_tenth_of_a_second_and_loud_is_an_event() -> None:
    stream = stream_of_tones("loud")
    sound = np.zeros(6 * RATE, np.float32)
    sound[RATE : RATE + 4_800] = 0.5
    heard = push(stream, sound, 777)
    levels = [each for each in heard if isinstance(each, Level)]
    expected = np.sqrt((sound.reshape(-1, 1_600) ** 2).mean(1))
    np.testing.assert_allclose([level.rms for level in levels], expected, atol=1e-6)
    assert max(level.peak for level in levels) == 0.5
    assert events(heard) == [("start", 1.0), ("end", 1.0, pytest.approx(1.3), "quiet")]
