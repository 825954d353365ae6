"""Dates and times of a stream, whatever the network does."""

from datetime import timedelta

import numpy as np
import pytest

from sat_jax.live.stream_clock import StreamClock


def told(clock, seconds):
    return clock.at(seconds).timestamp()


def test_a_network_only_adds_delay():
    clock, rng, errors = StreamClock(), np.random.default_rng(0), []
    assert clock.at(0.0) is None
    for k in range(1, 3000):
        seconds = k / 10
        clock.hear(seconds, 1e9 + seconds + 0.03 + rng.exponential(0.05))
        errors.append(told(clock, seconds) - (1e9 + seconds))
    assert max(errors[100:]) < 0.3
    assert max(abs(np.diff(errors[100:]))) < 0.26  # It does not wander.


def test_a_sender_whose_clock_drifts_is_followed():
    clock = StreamClock()
    for k in range(1, 36_000):
        seconds = k / 10
        clock.hear(seconds, 1e9 + seconds * 1.0005)  # 1.8 s an hour.
        if k > 100:
            assert abs(told(clock, seconds) - (1e9 + seconds * 1.0005)) < 0.32


def test_a_pause_of_the_sender_moves_the_times_within_a_minute():
    clock = StreamClock()
    for k in range(1, 1200):
        seconds = k / 10
        clock.hear(seconds, 1e9 + seconds + (5.0 if seconds > 30 else 0.0))
    assert told(clock, 119.0) == pytest.approx(1e9 + 124.0, abs=0.01)


def test_the_sender_knows_best():
    clock = StreamClock(began=2e9)
    clock.hear(0.0, 1e9)
    assert told(clock, 5.0) == 2e9 + 5.0


def test_the_clock_knows_the_least_delay() -> None:
    clock = StreamClock()
    assert clock.at(0.0) is None
    clock.hear(1.0, 1_001.9)  # 0.9 s late, the others less.
    clock.hear(2.0, 1_002.4)
    first = clock.at(0.0)
    clock.hear(3.0, 1_003.3)
    assert clock.at(0.0) == first and first.timestamp() == pytest.approx(1_000.4)
    assert first.utcoffset() is not None
    clock.hear(4.0, 1_004.0)
    assert clock.at(0.0).timestamp() == pytest.approx(1_000.0)
    clock.hear(5.0, 1_009.0)
    assert clock.at(2.5) - clock.at(0.0) == timedelta(seconds=2.5)
    assert clock.at(0.0).timestamp() == pytest.approx(1_000.0)


def test_the_clock_is_set_anew_after_a_gap() -> None:
    clock = StreamClock()
    clock.hear(1.0, 1_001.0)
    clock.forget()
    assert clock.at(0.0).timestamp() == 1_000.0
    clock.hear(2.0, 1_009.0)
    assert clock.at(0.0).timestamp() == 1_007.0
