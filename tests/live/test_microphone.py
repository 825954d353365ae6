"""Microphones: PortAudio's behaviour is played by a fake library."""

import sys
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest

from sat_jax.errors import SatError
from sat_jax.live.sources import Gap, list_microphones, open_source
from sat_jax.live.sources.microphone import MicrophoneSource, find_microphone
from sat_jax.live.sources.reconnecting import Timing

QUICK = Timing(start=0.3, stall=0.3, first_wait=0.05, longest_wait=0.1)
BLOCK = 800


class PortAudioError(Exception):
    pass


class FakeLibrary:
    """As much of sounddevice as is used."""

    PortAudioError = PortAudioError

    def __init__(self) -> None:
        self.devices = [
            self.device("Speaker", 0),
            self.device("Webcam (hw:1,0)", 4),
            self.device("USB microphone", 1),
            self.device("USB microphone (second)", 1),
        ]
        self.default = SimpleNamespace(device=[1, 0])
        self.refused = (2,)
        self.streams: list[FakeStream] = []
        self.looked = 0

    @staticmethod
    def device(name: str, channels: int) -> dict[str, object]:
        return {"name": name, "max_input_channels": channels, "default_samplerate": 8_000.0}

    def _terminate(self) -> None:
        assert all(stream.is_closed for stream in self.streams)

    def _initialize(self) -> None:
        self.looked += 1

    def query_devices(self, kind: str | None = None) -> object:
        if kind:
            raise PortAudioError("no default")
        return self.devices

    def check_input_settings(self, *, channels: int, **settings: object) -> None:
        if channels in self.refused:
            raise PortAudioError("Invalid number of channels", -9998)

    def RawInputStream(self, **settings: object) -> "FakeStream":
        if len(self.devices) == 1:
            raise PortAudioError("Device unavailable", -9985)
        self.streams.append(FakeStream(**settings))
        return self.streams[-1]


class FakeStream:
    """Blocks of a rising ramp come when a test says so."""

    def __init__(self, **settings: object) -> None:
        self.settings = SimpleNamespace(**settings)
        self.is_closed = False
        self.next = 0

    def start(self) -> None:
        pass

    def close(self, ignore_errors: bool) -> None:
        self.is_closed = True

    def send(self, blocks: int = 1, *, skip: int = 0, overflow: bool = False) -> None:
        for _ in range(blocks):
            self.next += skip
            ramp = np.arange(self.next, self.next + BLOCK, dtype=np.int16)
            frames = np.repeat(ramp, self.settings.channels)
            times = SimpleNamespace(inputBufferAdcTime=100.0 + self.next / 8_000)
            flags = SimpleNamespace(input_overflow=overflow)
            self.settings.callback(memoryview(frames.tobytes()), BLOCK, times, flags)
            self.next += BLOCK


@pytest.fixture
def library(monkeypatch) -> FakeLibrary:
    fake = FakeLibrary()
    monkeypatch.setitem(sys.modules, "sounddevice", fake)
    return fake


class Listening:
    """Collects the sound of a source in a thread."""

    def __init__(self, source: MicrophoneSource) -> None:
        self.source, self.pieces = source, []
        self.thread = threading.Thread(target=self._listen)
        self.thread.start()

    def _listen(self) -> None:
        self.pieces.extend(self.source.sound(8_000))

    def stop(self) -> list[np.ndarray | Gap]:
        self.source.stop()
        self.thread.join(1.0)
        assert not self.thread.is_alive()
        return self.pieces


def wait_for(condition) -> None:
    for _ in range(500):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("that did not happen")


def test_microphones_are_listed(library) -> None:
    found = list_microphones()
    assert [(m.name, m.rate, m.channels, m.is_default) for m in found] == [
        ("Webcam (hw:1,0)", 8_000, 4, True),
        ("USB microphone", 8_000, 1, False),
        ("USB microphone (second)", 8_000, 1, False),
    ]
    library.default.device = [-1, -1]
    assert not any(m.is_default for m in list_microphones())


@pytest.mark.parametrize(
    ("name", "found"),
    [("", "Webcam (hw:1,0)"), ("webcam", "Webcam (hw:1,0)"), ("usb microphone", "USB microphone")],
)
def test_a_microphone_is_found(name: str, found: str, library) -> None:
    assert find_microphone(name).name == found


@pytest.mark.parametrize("name", ["usb", "Speaker", "built-in"])
def test_an_unclear_name_is_an_error_that_lists_names(name: str, library) -> None:
    with pytest.raises(SatError, match="USB microphone"):
        find_microphone(name)


def test_no_microphone_is_an_error(library) -> None:
    library.devices = library.devices[:1]
    with pytest.raises(SatError, match="no microphone"):
        find_microphone("")


@pytest.mark.parametrize(
    ("error", "hint"), [(OSError("not found"), "libportaudio2"), (ImportError("x"), "pip install")]
)
def test_what_is_missing_is_told(error: Exception, hint: str, monkeypatch) -> None:
    class Missing:
        def find_spec(self, name: str, *rest: object) -> None:
            if name == "sounddevice":
                raise error

    monkeypatch.delitem(sys.modules, "sounddevice", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Missing(), *sys.meta_path])
    with pytest.raises(SatError, match=hint):
        open_source("mic:")


def test_blocks_come_at_the_devices_rate_with_all_channels_it_needs(library) -> None:
    listening = Listening(MicrophoneSource("", timing=QUICK))
    wait_for(lambda: library.streams)
    (stream,) = library.streams
    settings = stream.settings
    assert (settings.device, settings.channels, settings.blocksize) == (1, 4, BLOCK)
    stream.send(3)
    wait_for(lambda: len(listening.pieces) == 3)
    assert listening.source.status.up
    sound = np.concatenate(listening.stop())
    np.testing.assert_array_equal(sound, np.arange(3 * BLOCK, dtype=np.float32) / 32_768)
    assert stream.is_closed


def test_an_overflow_is_a_gap_where_it_was(library) -> None:
    listening = Listening(MicrophoneSource("usb microphone", timing=QUICK))
    wait_for(lambda: library.streams)
    (stream,) = library.streams
    stream.send()
    stream.send(skip=4_000, overflow=True)
    wait_for(lambda: len(listening.pieces) == 3)
    first, gap, second = listening.stop()
    assert gap == Gap(pytest.approx(0.5))
    assert (first[0], second[0]) == (0.0, 4_800 / 32_768)


def test_what_nobody_reads_in_time_is_a_gap(library) -> None:
    listening = Listening(MicrophoneSource("usb microphone", timing=QUICK))
    wait_for(lambda: library.streams)
    (stream,) = library.streams
    inbox = stream.settings.callback.__self__._inbox
    inbox.offer = lambda data: False  # As if it was full.
    stream.send(2)
    del inbox.offer
    stream.send()
    wait_for(lambda: len(listening.pieces) == 2)
    gap, block = listening.stop()
    assert gap == Gap(pytest.approx(0.2)) and block[0] == 2 * BLOCK / 32_768


def test_a_lost_microphone_comes_back(library) -> None:
    listening = Listening(MicrophoneSource("webcam", timing=QUICK))
    wait_for(lambda: library.streams)
    library.streams[0].send()
    devices, library.devices = library.devices, library.devices[:1]
    library.streams[0].settings.finished_callback()
    status = listening.source
    wait_for(lambda: "no microphone" in status.status.error)
    assert not status.status.up
    library.devices = devices
    wait_for(lambda: len(library.streams) == 2)
    assert library.looked >= 3
    library.streams[1].send()
    wait_for(lambda: len(listening.pieces) == 3)
    first, gap, second = listening.stop()
    assert isinstance(gap, Gap) and len(first) == len(second) == BLOCK


def test_a_silent_driver_is_opened_anew(library) -> None:
    listening = Listening(MicrophoneSource("webcam", timing=QUICK))
    wait_for(lambda: len(library.streams) == 2)
    assert library.streams[0].is_closed
    assert listening.stop() == []
