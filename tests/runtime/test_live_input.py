"""A signal that ends live input."""

import io
import os
import signal
import threading

import pytest

from sat_jax.runtime import live_input


@pytest.fixture(autouse=True)
def _ends_input(monkeypatch):
    before = signal.getsignal(signal.SIGUSR1)
    monkeypatch.setattr(live_input, "_is_ended", False)
    live_input.end_input_on(signal.SIGUSR1)
    yield
    signal.signal(signal.SIGUSR1, before)


@pytest.fixture
def pipe():
    reader, writer = os.pipe()
    with open(reader, "rb", buffering=0) as stream, open(writer, "wb", buffering=0) as other:
        yield stream, other


def test_bytes_are_returned_as_they_come(pipe):
    stream, other = pipe
    other.write(b"there")
    assert live_input.read_input(stream, 100) == b"there"
    other.close()
    assert live_input.read_input(stream, 100) == b""
    assert live_input.read_input(io.BytesIO(b"memory"), 3) == b"mem"


def test_a_wait_is_ended(pipe):
    main = threading.get_ident()
    threading.Timer(0.05, signal.pthread_kill, (main, signal.SIGUSR1)).start()
    assert live_input.read_input(pipe[0], 1) == b""
    assert live_input.input_is_ended()


def test_a_signal_just_before_a_wait_ends_it(pipe, monkeypatch):
    """As if Python had seen the signal too late to run its handler before the wait."""
    select = live_input.select.select

    def late(*args):
        signal.raise_signal(signal.SIGUSR1)
        monkeypatch.setattr(live_input, "_is_ended", False)
        found = select(*args)
        monkeypatch.setattr(live_input, "_is_ended", True)
        return found

    monkeypatch.setattr(live_input.select, "select", late)
    assert live_input.read_input(pipe[0], 1) == b""


def test_a_named_pipe_is_opened_before_its_writer(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with live_input.open_pipe(tmp_path / "pipe") as stream:
        threading.Timer(0.05, (tmp_path / "pipe").write_bytes, (b"late",)).start()
        assert live_input.read_input(stream, 100) == b"late"
        assert live_input.read_input(stream, 100) == b""


def test_work_between_waits_goes_on():
    signal.raise_signal(signal.SIGUSR1)
    assert live_input.input_is_ended()
    assert live_input.read_input(io.BytesIO(b"there"), 1) == b""
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGUSR1)
