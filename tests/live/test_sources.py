"""Sources that end, hang, lose sound and come back; a fake ffmpeg stands for cameras."""

import io
import itertools
import os
import socket
import sys
import textwrap
import threading
import time
import wave
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from sat_jax.errors import SatError
from sat_jax.live.sources import Gap, Source, open_source
from sat_jax.live.sources.ffmpeg_source import FfmpegSource
from sat_jax.live.sources.inbox import Inbox
from sat_jax.live.sources.reconnecting import Int16Frames, Timing
from sat_jax.live.sources.tcp_source import TcpSource

QUICK = Timing(start=0.9, stall=0.6, first_wait=0.05, longest_wait=0.2, steady=60.0, silence=1.0)
URL = "rtsp://admin:hunter2@camera/live"
RATE = 16_000
TONE = (8_000 * np.sin(np.arange(RATE) / 5)).astype("<i2")

AU = """
import os, struct, sys, time
folder, arguments = os.path.dirname(__file__), sys.argv[1:]
runs = len(os.listdir(folder))
open(os.path.join(folder, f"run{runs}"), "w").write("\\n".join([str(os.getpid()), *arguments]))
out = sys.stdout.buffer

def header(rate=16000, channels=1):
    out.write(struct.pack(">4s5I", b".snd", 28, 0xFFFFFFFF, 3, rate, channels) + b"none")
    out.flush()

def tone(seconds, rate=16000, channels=1, value=8000):
    out.write(struct.pack(">h", value) * channels * int(seconds * rate))
    out.flush()
"""


@pytest.fixture
def ffmpeg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Writes a fake ffmpeg from lines of Python; returns the folder in which runs are noted."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")

    def write(lines: str) -> Path:
        program = folder / "ffmpeg"
        program.write_text(f"#!{sys.executable} -IS\n{AU}\n{textwrap.dedent(lines)}")
        program.chmod(0o755)
        return folder

    return write


def read(source: Source, seconds: float, rate: int = RATE) -> list[np.ndarray | Gap]:
    """Listens for so long."""
    threading.Timer(seconds, source.stop).start()
    return list(source.sound(rate))


def samples(pieces: list[np.ndarray | Gap]) -> np.ndarray:
    return np.concatenate([p for p in pieces if not isinstance(p, Gap)] or [np.zeros(0)])


def gaps(pieces: list[np.ndarray | Gap]) -> list[float]:
    return [p.seconds for p in pieces if isinstance(p, Gap)]


def runs(folder: Path) -> list[list[str]]:
    return [path.read_text().splitlines() for path in sorted(folder.glob("run*"))]


def is_running(pid: str) -> bool:
    return os.path.exists(f"/proc/{pid}")


def test_a_camera_is_heard_at_its_own_rate(ffmpeg) -> None:
    folder = ffmpeg("header(8000, 2)\ntone(1, 8000, 2)\ntime.sleep(9)")
    source = FfmpegSource(URL, timing=Timing())
    pieces = []
    for piece in source.sound(RATE):
        assert source.status.up and not source.status.error
        if not pieces:
            threading.Timer(0.2, source.stop).start()
        pieces.append(piece)
    assert not gaps(pieces)
    sound = samples(pieces)
    assert len(sound) == RATE
    np.testing.assert_allclose(sound[1000:-1000], 8000 / 32768, rtol=1e-3)
    ((pid, *arguments),) = runs(folder)
    assert not is_running(pid)
    assert {"-nostdin", "-vn", URL} <= set(arguments)
    options = dict(itertools.pairwise(arguments))
    assert options["-rtsp_transport"] == "tcp" and options["-timeout"] == "5000000"
    assert options["-protocol_whitelist"] == "rtsp,rtsps,tcp,tls" and options["-i"] == URL


def test_a_camera_that_dies_comes_back(ffmpeg) -> None:
    folder = ffmpeg(
        """
        header()
        tone(0.2)
        print("[rtsp @ 0x1] rtsp://admin:hunter2@camera/live: Connection reset by peer",
              file=sys.stderr)
        """
    )
    source = FfmpegSource(URL, timing=QUICK)
    seen = set()
    pieces = []
    for piece in source.sound(RATE):
        pieces.append(piece)
        seen.add((source.status.up, source.status.error))
        if len(gaps(pieces)) == 2:
            assert source.status.restarts >= 2
            source.stop()
    assert len(runs(folder)) > 2 and all(0.0 < gap < 5.0 for gap in gaps(pieces))
    assert {(True, ""), (False, "Connection reset by peer")} <= seen


def test_waits_grow_and_are_reset_by_steady_sound(monkeypatch) -> None:
    source = FfmpegSource.__new__(FfmpegSource)
    super(FfmpegSource, source).__init__(channel=None, timing=Timing())
    monkeypatch.setattr("random.uniform", lambda low, high: high)
    assert [source._wait_seconds(n) for n in (0, 1, 2, 3, 5, 6, 7, 99)] == [
        1.0, 2.0, 4.0, 8.0, 32.0, 60.0, 60.0, 60.0,
    ]  # fmt: skip
    monkeypatch.undo()
    assert len({source._wait_seconds(3) for _ in range(9)}) > 1


def test_steady_sound_makes_waits_begin_anew(ffmpeg, monkeypatch) -> None:
    waits: list[int] = []
    for steady, expected in ((60.0, [0, 1, 2]), (0.0, [0, 0, 0])):
        ffmpeg("header()\ntone(0.1)")
        source = FfmpegSource(URL, timing=Timing(steady=steady))
        waits.clear()

        def wait(failures: int, source: FfmpegSource = source) -> float:
            waits.append(failures)
            if len(waits) == 3:
                source.stop()
            return 0.0

        monkeypatch.setattr(source, "_wait_seconds", wait)
        assert list(source.sound(RATE))
        assert waits == expected


def test_a_camera_that_hangs_is_killed(ffmpeg) -> None:
    folder = ffmpeg("header()\ntone(0.2)\ntime.sleep(60)")
    source = FfmpegSource(URL, timing=QUICK)
    for piece in source.sound(RATE):
        if isinstance(piece, Gap):
            assert 0.4 < piece.seconds < 5.0
            assert source.status.error == "no sound for 1 s" and not source.status.up
            source.stop()
    first, second = runs(folder)
    assert not is_running(first[0]) and not is_running(second[0])


def test_a_header_without_sound_is_a_hang(ffmpeg) -> None:
    folder = ffmpeg("header()\ntime.sleep(60)")
    source = FfmpegSource(URL, timing=QUICK)
    assert read(source, 2.0) == [] and len(runs(folder)) >= 2


def test_a_script_that_starts_ffmpeg_is_killed_too(ffmpeg, tmp_path) -> None:
    folder = ffmpeg(
        """
        import subprocess
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        open(os.path.join(folder, "..", "child"), "w").write(str(child.pid))
        header()
        tone(0.2)
        child.wait()
        """
    )
    source = FfmpegSource(URL, timing=Timing())
    began = time.monotonic()
    assert len(read(source, 0.5)) and time.monotonic() - began < 1.5
    del folder
    for _ in range(50):
        state = Path(f"/proc/{(tmp_path / 'child').read_text()}/stat")
        if not state.exists() or state.read_text().split()[2] == "Z":
            return
        time.sleep(0.02)
    raise AssertionError("it is running")


def test_stop_ends_a_silent_source_at_once(ffmpeg) -> None:
    ffmpeg("time.sleep(60)")
    source = FfmpegSource(URL)
    began = time.monotonic()
    assert read(source, 0.2) == []
    assert time.monotonic() - began < 1.0
    assert not source.status.up


def test_zeros_and_full_scale_are_told(ffmpeg) -> None:
    ffmpeg("header()\ntone(0.5, value=32767)\ntone(1.2, value=0)\ntime.sleep(9)")
    source = FfmpegSource(URL, timing=QUICK)
    seen = []
    heard = 0
    for piece in source.sound(RATE):
        heard += len(piece)
        seen.append((source.status.clipped, source.status.silent))
        if heard >= 1.7 * RATE:
            source.stop()
    assert seen[0] == (True, False) and seen[-1] == (False, True)


def test_a_missing_channel_is_an_error(ffmpeg) -> None:
    ffmpeg("header(16000, 2)\ntone(0.2, channels=2)\ntime.sleep(9)")
    with pytest.raises(SatError, match="channel 2"):
        list(FfmpegSource(URL, channel=2).sound(RATE))


def test_without_ffmpeg_one_line_tells(monkeypatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SatError, match="ffmpeg") as error:
        open_source(URL)
    assert "hunter2" not in str(error.value)


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(5)
        yield server


def test_raw_samples_are_read_over_tcp(listener) -> None:
    url = f"tcp://127.0.0.1:{listener.getsockname()[1]}?rate=16000&channels=2"
    source = TcpSource(url, timing=QUICK)

    def serve() -> None:
        for _ in range(2):
            connection, _ = listener.accept()
            with connection:
                stereo = np.stack([TONE, 0 * TONE], axis=1).tobytes()
                connection.sendall(stereo[:7])
                time.sleep(0.02)
                connection.sendall(stereo[7:16_000])

    server = threading.Thread(target=serve)
    server.start()
    pieces = read(source, 0.6)
    server.join()
    expected = np.tile(TONE[:4_000] / np.float32(65_536), 2)
    np.testing.assert_allclose(samples(pieces), expected, atol=1e-6)
    assert len(gaps(pieces)) == 1 and source.status.error


def test_a_refused_connection_is_told(listener) -> None:
    port = listener.getsockname()[1]
    listener.close()
    source = TcpSource(f"tcp://127.0.0.1:{port}", timing=QUICK)
    assert read(source, 0.4) == []
    assert "refused" in source.status.error and source.status.restarts >= 1


def test_a_small_microphone_connects_by_itself(listener) -> None:
    port = listener.getsockname()[1]
    listener.close()
    source = TcpSource(f"tcp://127.0.0.1:{port}?listen=1", timing=QUICK)
    pieces: list[np.ndarray | Gap] = []
    thread = threading.Thread(target=lambda: pieces.extend(source.sound(RATE)))
    thread.start()
    time.sleep(0.8)  # Longer than a stall: nobody is late yet.
    assert not source.status.error and not source.status.restarts
    for seconds in (0.1, 0.9):  # The second one hangs.
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(TONE.tobytes())
            time.sleep(seconds)
    source.stop()
    thread.join(1.0)
    assert not thread.is_alive()
    assert len(samples(pieces)) == 2 * len(TONE) and len(gaps(pieces)) <= 1
    with socket.create_server(("127.0.0.1", port)):
        pass  # It has given the port back.


def test_a_port_in_use_is_told(listener) -> None:
    source = TcpSource(f"tcp://127.0.0.1:{listener.getsockname()[1]}?listen=1", timing=QUICK)
    assert read(source, 0.2) == [] and "in use" in source.status.error


@pytest.fixture
def stdin(monkeypatch) -> Iterator[io.BufferedWriter]:
    reader, writer = os.pipe()
    with open(reader, "rb") as stream, open(writer, "wb") as sink:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(stream))
        yield sink
        sink.close()


def test_standard_input_is_a_file_or_samples(stdin) -> None:
    with wave.open(stdin, "wb") as file:
        file.setparams((1, 2, RATE, len(TONE), "NONE", ""))
        file.writeframes(TONE.tobytes())
    stdin.close()
    source = open_source("-")
    np.testing.assert_allclose(samples(list(source.sound(RATE))), TONE / np.float32(32_768))
    assert not source.status.up and not source.status.restarts


def test_standard_input_that_waits_is_stopped(stdin) -> None:
    stdin.write(TONE.tobytes())
    stdin.flush()
    source = open_source("-")
    began = time.monotonic()
    assert len(samples(read(source, 0.3))) == len(TONE)
    assert time.monotonic() - began < 1.0


def test_damaged_standard_input_is_an_error(stdin) -> None:
    with wave.open(stdin, "wb") as file:
        file.setparams((1, 2, RATE, 2 * len(TONE), "NONE", ""))
        file.writeframesraw(TONE.tobytes())
        file._datawritten = file._datalength  # So that it does not correct its header.
    stdin.close()
    heard = []
    with pytest.raises(SatError, match="truncated"):
        heard.extend(open_source("-").sound(RATE))


def test_no_standard_input_is_an_error(monkeypatch) -> None:
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(SatError, match="closed"):
        open_source("-")


def test_an_inbox_waits_for_room_and_ends() -> None:
    inbox = Inbox(1)
    assert inbox.get(0.0) == b"" and inbox.offer(b"a") and not inbox.offer(b"b")
    thread = threading.Thread(target=lambda: inbox.put(b"c") and inbox.end("over"))
    thread.start()
    assert [inbox.get(1.0), inbox.get(1.0)] == [b"a", b"c"]
    thread.join()
    assert inbox.get(1.0) is None and inbox.problem == "over"
    inbox.offer(b"d")
    thread = threading.Thread(target=inbox.put, args=(b"e",))
    thread.start()
    inbox.close()
    thread.join(1.0)
    assert not thread.is_alive()


@pytest.mark.parametrize("cut", [1, 3, 8, 1_000])
def test_frames_are_cut_anywhere(cut: int) -> None:
    data = np.arange(300, dtype=">i2").tobytes()
    frames = Int16Frames(3, ">i2")
    parts = [frames.push(data[first : first + cut]) for first in range(0, len(data), cut)]
    expected = np.arange(300, dtype=np.float32).reshape(-1, 3) / 32_768
    np.testing.assert_array_equal(np.concatenate(parts), expected)
