"""Sources beside real servers and devices, where they are installed."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from sat_jax.live.sources import Gap, Source, list_microphones, open_source
from sat_jax.live.sources.ffmpeg_source import FfmpegSource
from sat_jax.live.sources.reconnecting import Timing
from tests.support.media_server import encode, noise, serve_media

pytestmark = pytest.mark.slow

SYSTEM_PYTHON = "/usr/bin/python3"
RTSP_SERVER = """
import sys
import gi
gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer
if len(sys.argv) == 1:
    sys.exit()
Gst.init(None)
factory = GstRtspServer.RTSPMediaFactory()
factory.set_launch("( audiotestsrc is-live=true freq=1000 volume=0.5 ! audio/x-raw,rate=8000,"
                   "channels=1 ! alawenc ! rtppcmapay name=pay0 pt=8 )")
factory.set_shared(True)
server = GstRtspServer.RTSPServer()
server.set_address("127.0.0.1")
server.set_service(sys.argv[1])
server.get_mount_points().add_factory("/live", factory)
server.attach(None)
print("ready", flush=True)
GLib.MainLoop().run()
"""


def can_run(*command: str) -> bool:
    try:
        return subprocess.run(command, capture_output=True).returncode == 0
    except OSError:
        return False


needs_rtsp = pytest.mark.skipif(
    not (can_run(SYSTEM_PYTHON, "-c", RTSP_SERVER) and shutil.which("ffmpeg")),
    reason="needs ffmpeg and GStreamer's RTSP server for the system's Python",
)


def has_portaudio() -> bool:
    try:
        import sounddevice  # noqa: F401
    except (ImportError, OSError):
        return False
    return True


needs_pulse = pytest.mark.skipif(
    not (has_portaudio() and shutil.which("pulseaudio") and shutil.which("pacat")),
    reason="needs PortAudio and PulseAudio",
)


class Listening:
    """Collects the sound of a source, and when it came, in a thread."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.pieces: list[np.ndarray | Gap] = []
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def _listen(self) -> None:
        for piece in self.source.sound(16_000):
            self.pieces.append(piece)

    @property
    def seconds(self) -> float:
        return sum(len(p) for p in list(self.pieces) if not isinstance(p, Gap)) / 16_000

    @property
    def gaps(self) -> list[float]:
        return [p.seconds for p in list(self.pieces) if isinstance(p, Gap)]

    def wait_for(self, condition: Callable[[], bool], seconds: float = 30.0) -> float:
        """Waits, and returns for how long."""
        began = time.monotonic()
        while not condition():
            assert time.monotonic() - began < seconds, self.source.status
            time.sleep(0.02)
        return time.monotonic() - began

    def stop(self) -> np.ndarray:
        self.source.stop()
        self._thread.join(1.5)
        assert not self._thread.is_alive()
        return np.concatenate([p for p in self.pieces if not isinstance(p, Gap)])


def strongest_hz(sound: np.ndarray) -> float:
    return float(np.argmax(np.abs(np.fft.rfft(sound[-16_000:]))[1:]) + 1)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


class RtspServer:
    """A camera's server, in a process of its own."""

    def __init__(self) -> None:
        self.port = free_port()
        self.start()

    def start(self) -> None:
        command = [SYSTEM_PYTHON, "-c", RTSP_SERVER, str(self.port)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert self.process.stdout is not None and self.process.stdout.readline() == b"ready\n"

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def camera() -> Iterator[RtspServer]:
    server = RtspServer()
    yield server
    server.kill()


@needs_rtsp
def test_a_camera_that_is_killed_comes_back(camera) -> None:
    source = open_source(f"rtsp://admin:hunter2@127.0.0.1:{camera.port}/live")
    listening = Listening(source)
    listening.wait_for(lambda: listening.seconds > 1.0)
    camera.kill()
    listening.wait_for(lambda: not source.status.up)
    listening.wait_for(lambda: "refused" in source.status.error)
    assert "hunter2" not in source.status.error
    camera.start()
    listening.wait_for(lambda: bool(listening.gaps) and source.status.up)
    before = listening.seconds
    listening.wait_for(lambda: listening.seconds > before + 1.0)
    assert source.status.error == "" and source.status.restarts >= 1
    assert 0.5 < listening.gaps[0] < 20.0
    assert strongest_hz(listening.stop()) == pytest.approx(1_000, abs=3)


@needs_rtsp
def test_a_camera_that_freezes_is_noticed(camera) -> None:
    source = FfmpegSource(f"rtsp://127.0.0.1:{camera.port}/live", timing=Timing(stall=2.0))
    listening = Listening(source)
    listening.wait_for(lambda: listening.seconds > 1.0)
    camera.process.send_signal(signal.SIGSTOP)
    took = listening.wait_for(lambda: not source.status.up)
    assert 1.5 < took < 4.0
    camera.process.send_signal(signal.SIGCONT)
    listening.wait_for(lambda: bool(listening.gaps) and source.status.up)
    listening.stop()


@needs_rtsp
def test_web_radio_is_heard_and_opened_anew(monkeypatch) -> None:
    with serve_media(monkeypatch) as server:
        server.files["radio.wav?key=hunter2"] = encode(noise(3.0, 48_000, 2), 48_000)
        source = open_source(f"{server.url}/radio.wav?key=hunter2")
        listening = Listening(source)
        listening.wait_for(lambda: listening.seconds > 5.0)
        listening.stop()
        assert source.status.restarts == 1
        gone = open_source(f"{server.url}/gone?key=hunter2")
        listening = Listening(gone)
        listening.wait_for(lambda: bool(gone.status.error))
        gone.stop()
        assert "404" in gone.status.error and "hunter2" not in gone.status.error


@needs_rtsp
def test_a_playlist_may_not_read_files(monkeypatch, tmp_path: Path) -> None:
    (tmp_path / "secret.wav").write_bytes(encode(noise(3.0)))
    playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\nfile://{tmp_path}/secret.wav\n"
    with serve_media(monkeypatch) as server:
        server.files["list.m3u8"] = f"{playlist}#EXT-X-ENDLIST\n".encode()
        source = open_source(f"{server.url}/list.m3u8")
        listening = Listening(source)
        listening.wait_for(lambda: bool(source.status.error))
        source.stop()
        assert listening.seconds == 0.0


@pytest.fixture
def sound_server(tmp_path: Path, monkeypatch) -> Iterator[Callable[[], subprocess.Popen]]:
    """Starts PulseAudio with a speaker that is heard by the default microphone."""
    address = tmp_path / "native"
    for name in ("HOME", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setenv("PULSE_SERVER", f"unix:{address}")
    (tmp_path / ".asoundrc").write_text("pcm.!default { type pulse }\nctl.!default { type pulse }")
    command = ["pulseaudio", "-n", "--daemonize=no", "--exit-idle-time=-1", "--use-pid-file=no"]
    modules = [
        f"module-native-protocol-unix auth-anonymous=1 socket={address}",
        "module-null-sink sink_name=speaker rate=48000 channels=2",
    ]
    for module in modules:
        command += ["-L", module]
    running = []

    def start() -> subprocess.Popen:
        with contextlib.suppress(FileNotFoundError):
            address.unlink()
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        running.append(process)
        for _ in range(500):
            if address.exists():
                return process
            time.sleep(0.02)
        raise AssertionError("PulseAudio did not start")

    yield start
    for process in running:
        process.kill()
        process.wait()


@contextlib.contextmanager
def playing(hz: float) -> Iterator[None]:
    """Plays a tone through the speaker."""
    tone = (12_000 * np.sin(2 * np.pi * hz * np.arange(20 * 48_000) / 48_000)).astype("<i2")
    command = ["pacat", "--format=s16le", "--rate=48000", "--channels=1"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as player:
        assert player.stdin is not None
        feeder = threading.Thread(target=_feed, args=(player.stdin, tone.tobytes()))
        feeder.start()
        try:
            yield
        finally:
            player.kill()
            feeder.join()


def _feed(pipe, data: bytes) -> None:
    with contextlib.suppress(OSError):
        pipe.write(data)


@needs_pulse
def test_a_microphone_hears_the_speaker_and_comes_back(sound_server) -> None:
    process = sound_server()
    assert [each.name for each in list_microphones() if each.is_default] == ["default"]
    source = open_source("mic:default")
    with playing(440.0):
        listening = Listening(source)
        listening.wait_for(lambda: listening.seconds > 1.0)
        before = listening.seconds
        took = listening.wait_for(lambda: listening.seconds > before + 2.0)
        assert took == pytest.approx(2.0, abs=0.5)  # As fast as sound is.
    process.kill()
    process.wait()
    listening.wait_for(lambda: not source.status.up)
    sound_server()
    with playing(880.0):
        listening.wait_for(lambda: source.status.up)
        before = listening.seconds
        listening.wait_for(lambda: listening.seconds > before + 1.5)
        assert listening.gaps and source.status.restarts >= 1
    sound = listening.stop()
    assert strongest_hz(sound) == pytest.approx(880, abs=3)
    assert strongest_hz(sound[:16_000]) == pytest.approx(440, abs=3)


def test_programs_that_only_tag_load_no_live_library() -> None:
    code = "import sys, sat_jax.commands.tag; print('sounddevice' in sys.modules)"
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ
    )
    assert found.stdout == "False\n"
