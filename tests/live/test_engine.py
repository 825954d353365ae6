"""Every stream of an engine gets the scores that it gets alone."""

import threading
import time

import numpy as np
import pytest

from sat_jax.config import ModelConfig
from sat_jax.errors import SatError
from sat_jax.live.engine import Engine, EngineLimits, Overloaded
from sat_jax.live.stream import WaitingSamples
from sat_jax.tagger import Tagger
from tests.support.labelled_clips import tiny_checkpoint


@pytest.fixture(scope="module")
def tagger():
    return Tagger(tiny_checkpoint(), chunk_seconds=0.32)


class Told:
    """Collects what an engine delivers."""

    def __init__(self):
        self.by_stream = {}
        self.ended = set()
        self.changed = threading.Condition()

    def __call__(self, told):
        with self.changed:
            for stream, scored in told:
                if scored is None:
                    self.ended.add(stream)
                else:
                    self.by_stream.setdefault(stream, []).append(scored)
            self.changed.notify_all()

    def wait(self, condition):
        with self.changed:
            assert self.changed.wait_for(condition, timeout=60)


@pytest.fixture
def engine(tagger):
    told = Told()
    made = Engine(tagger, told, EngineLimits(max_streams=6, max_lag=1e6))
    made.told = told
    yield made
    made.stop()


def scores_alone(tagger, samples):
    return np.stack([chunk.probs for chunk in tagger.stream([samples])])


def noise(seed, seconds=3.0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal(round(16_000 * seconds)).astype(np.float32) * np.float32(0.1)


def test_streams_side_by_side_are_those_alone(tagger, engine):
    rng = np.random.default_rng(1)
    sounds = {engine.open(pace): noise(seed) for seed, pace in enumerate(("realtime", "asap") * 3)}
    left = dict(sounds)
    while left:
        stream = list(left)[rng.integers(len(left))]
        count = int(rng.integers(1, 9000))
        engine.push(stream, left[stream][:count])
        left[stream] = left[stream][count:]
        if not len(left[stream]):
            engine.finish(stream)
            del left[stream]
    engine.told.wait(lambda: len(engine.told.ended) == 6)
    for stream, samples in sounds.items():
        told = engine.told.by_stream[stream]
        np.testing.assert_allclose(
            np.stack([one.probs for one in told]), scores_alone(tagger, samples), atol=1e-6
        )
        edges = [0, *np.arange(engine.hop, len(samples), engine.hop), len(samples)]
        assert [one.first for one in told] == edges[:-1]
        assert [one.end for one in told] == edges[1:]
    assert engine.used == 0
    # A row is new for its next stream.
    again = engine.open()
    engine.push(again, noise(9, 0.32))
    engine.told.wait(lambda: again in engine.told.by_stream)
    assert engine.told.by_stream[again][0].probs == pytest.approx(
        scores_alone(tagger, noise(9, 0.32))[0], abs=1e-6
    )


def test_too_many_streams(engine):
    streams = [engine.open() for _ in range(6)]
    with pytest.raises(Overloaded, match="6"):
        engine.open()
    engine.close(streams[0])
    engine.open()
    assert engine.counts.rejected == 1


def test_what_is_too_late_is_dropped_and_told(tagger):
    told = Told()
    engine = Engine(tagger, told, EngineLimits(max_streams=2, max_lag=0.05))
    live, recording = engine.open(), engine.open("asap")
    engine.pause()
    for stream in (live, recording):
        engine.push(stream, noise(3, 0.64))
    time.sleep(0.1)
    with engine._lock:
        engine._paused = False
        engine._lock.notify_all()
    told.wait(lambda: len(told.by_stream.get(recording, [])) == 2)
    assert [one.probs is None for one in told.by_stream[live]] == [True, True]
    assert [(one.first, one.end) for one in told.by_stream[live]] == [(0, 5120), (5120, 10240)]
    assert all(one.probs is not None for one in told.by_stream[recording])
    assert engine.counts.dropped == 2
    engine.stop()


def test_a_stream_moves_to_another_engine(tagger, engine):
    samples = noise(5, 3.2)
    stream = engine.open()
    engine.push(stream, samples[: 4 * engine.hop + 100])
    engine.told.wait(lambda: len(engine.told.by_stream.get(stream, [])) == 4)
    engine.pause()
    data = engine.to_bytes(stream)
    told = Told()
    other = Engine(tagger, told, EngineLimits(max_streams=1))
    moved = other.from_bytes(data, first=4 * engine.hop)
    other.push(moved, samples[4 * engine.hop :])
    other.finish(moved)
    told.wait(lambda: moved in told.ended)
    found = [one.probs for one in engine.told.by_stream[stream] + told.by_stream[moved]]
    np.testing.assert_allclose(np.stack(found), scores_alone(tagger, samples), atol=1e-6)
    with pytest.raises(SatError):
        other.from_bytes(data[:-1], first=0)
    assert other.used == 0
    other.stop()


def test_capacity_is_what_fits(tagger):
    engine = Engine(tagger, Told(), EngineLimits())
    assert engine.capacity == engine.fitting >= 1
    assert engine.fitting == max(1, int(0.5 * 0.32 / engine.seconds_a_stream))
    engine.stop()


def test_waiting_samples_come_in_order():
    waiting, sent = WaitingSamples(10), np.arange(57, dtype=np.float32)
    for first, end in ((0, 3), (3, 24), (24, 57)):
        waiting.push(sent[first:end], now=float(end))
    arrivals, chunks = [], []
    while waiting.arrival is not None:
        arrivals.append(waiting.arrival)
        chunks.append(waiting.take_chunk())
    assert arrivals == [24.0, 24.0, 57.0, 57.0, 57.0]
    np.testing.assert_array_equal(np.concatenate([*chunks, waiting.take_all()]), sent)
    assert len(waiting) == 0


def test_seamless_framing_is_refused():
    checkpoint = tiny_checkpoint()
    assert isinstance(checkpoint.config, ModelConfig)
    with pytest.raises(SatError, match="seamless"):
        Engine(Tagger(checkpoint, framing="seamless"), Told(), EngineLimits())
