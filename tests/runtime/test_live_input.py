"""A signal that ends live input."""

import os
import signal

import pytest

from sat_jax.runtime import live_input


@pytest.fixture(autouse=True)
def _ends_input(monkeypatch):
    before = signal.getsignal(signal.SIGUSR1)
    monkeypatch.setattr(live_input, "_is_ended", False)
    live_input.end_input_on(signal.SIGUSR1)
    yield
    signal.signal(signal.SIGUSR1, before)


def test_a_wait_is_ended():
    reader, writer = os.pipe()

    def wait():
        signal.raise_signal(signal.SIGUSR1)
        return os.read(reader, 1)

    assert live_input.wait_for(lambda: "there") == "there"
    assert not live_input.input_is_ended()
    assert live_input.wait_for(wait) is None
    assert live_input.input_is_ended()
    assert live_input.wait_for(os.read, reader, 1) is None
    os.close(reader), os.close(writer)


def test_work_between_waits_goes_on():
    signal.raise_signal(signal.SIGUSR1)
    assert live_input.input_is_ended()
    assert live_input.wait_for(lambda: "there") is None
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGUSR1)
