"""Dates and times of a stream, whatever the network does."""

import numpy as np
import pytest

from sat_jax.live.clock import StreamClock


def told(clock, seconds):
    return clock(seconds).timestamp()


def test_a_network_only_adds_delay():
    clock, rng, errors = StreamClock(), np.random.default_rng(0), []
    assert clock(0.0) is None
    for k in range(1, 3000):
        seconds = k / 10
        clock.note(1e9 + seconds + 0.03 + rng.exponential(0.05), seconds)
        errors.append(told(clock, seconds) - (1e9 + seconds))
    assert max(errors[100:]) < 0.3
    assert max(abs(np.diff(errors[100:]))) < 0.26  # It does not wander.


def test_a_sender_whose_clock_drifts_is_followed():
    clock = StreamClock()
    for k in range(1, 36_000):
        seconds = k / 10
        clock.note(1e9 + seconds * 1.0005, seconds)  # 1.8 s an hour.
        if k > 100:
            assert abs(told(clock, seconds) - (1e9 + seconds * 1.0005)) < 0.32


def test_a_pause_of_the_sender_moves_the_times_within_a_minute():
    clock = StreamClock()
    for k in range(1, 1200):
        seconds = k / 10
        clock.note(1e9 + seconds + (5.0 if seconds > 30 else 0.0), seconds)
    assert told(clock, 119.0) == pytest.approx(1e9 + 124.0, abs=0.01)


def test_the_sender_knows_best():
    clock = StreamClock(began=2e9)
    clock.note(1e9, 0.0)
    assert told(clock, 5.0) == 2e9 + 5.0
