"""The command that listens: sources, outputs, and how it ends."""

import codecs
import contextlib
import fcntl
import io
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
import pytest

from sat_jax.config import ModelConfig
from sat_jax.labels import default_label_names
from sat_jax.models.transformer import init_variables
from sat_jax.weights.checkpoint import Checkpoint, save_checkpoint
from tests.support.programs import run_command
from tests.support.screen import Screen

RATE = 16_000
ROOT = Path(__file__).parents[2]
RULES = '[rules.default]\nwatch = ["Speech"]\non = 0.001\n'
CAMERA = f"""#!{sys.executable} -IS
import struct, sys, time
out = sys.stdout.buffer
out.write(struct.pack(">4s5I", b".snd", 24, 0xFFFFFFFF, 3, 16000, 1))
while True:
    out.write(bytes(range(0, 100, 2)) * 64)
    out.flush()
    time.sleep(0.1)
"""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    config = ModelConfig(
        width=64, depth=1, num_classes=5, target_length=32, cache_length=32, pad_last=True
    )
    variables = jax.jit(init_variables, static_argnums=0)(config, jax.random.key(0))
    folder = tmp_path_factory.mktemp("models") / "tiny"
    labels = ("Speech", *default_label_names(5)[1:])
    save_checkpoint(folder, Checkpoint(config=config, variables=variables, labels=labels))
    return folder


@pytest.fixture(autouse=True)
def _same_signals() -> Iterator[None]:
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    (tmp_path / "rules.toml").write_text(RULES)
    return tmp_path / "rules.toml"


@pytest.fixture
def camera(tmp_path: Path, monkeypatch) -> str:
    """A URL that a fake ffmpeg reads for ever."""
    program = tmp_path / "bin" / "ffmpeg"
    program.parent.mkdir()
    program.write_text(CAMERA)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    return "rtsp://admin:hunter2@camera/live"


def pipe_in(monkeypatch, seconds: float) -> None:
    sound = 0.1 * np.random.default_rng(0).standard_normal(round(seconds * RATE))
    data = (sound * 32_767).astype("<i2").tobytes()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))


def test_tags_of_standard_input(tiny, monkeypatch, capsys) -> None:
    pipe_in(monkeypatch, 2.2)
    assert run_command("listen", "-m", tiny, "-c", 1, "-k", 2, "-") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "===== standard input =====" and sum("Topk-2" in line for line in lines) == 3


def test_events_of_standard_input(tiny, rules, monkeypatch, capsys) -> None:
    pipe_in(monkeypatch, 3.0)
    assert run_command("listen", "-m", tiny, "-c", 1, "--rules", rules, "--events", "-") == 0
    start, end = map(json.loads, capsys.readouterr().out.splitlines())
    assert (start["kind"], start["label"], start["start"]) == ("start", "Speech", 1.0)
    assert (end["kind"], end["end"], end["reason"]) == ("end", 3.0, "closed")


@pytest.mark.parametrize(
    "arguments",
    [
        ("street.wav",),
        ("-", "-"),
        ("--url=rtsp://camera", "-"),
        ("--url=rtsp://camera", "--mic=USB"),
        ("--threshold=2", "-"),
        ("--events", "--k=3", "-"),
        ("--events", "--threshold=0.5", "-"),
        ("--mic=",),
        ("--channel=-1",),
    ],
    ids=" ".join,
)
def test_wrong_flags(arguments, capsys) -> None:
    assert run_command("listen", *arguments) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ("--url=file:///etc/passwd",),
        ("--url=rtsp://admin:hunter2@camera:port/live",),
        ("--rules=missing.toml", "-"),
        ("-m", "no_model", "-"),
        ("-",),
    ],
    ids=" ".join,
)
def test_what_cannot_be_heard_is_one_line(arguments, monkeypatch, tmp_path, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    if "-m" in arguments or "--rules=missing.toml" in arguments:
        pipe_in(monkeypatch, 1.0)
    else:
        monkeypatch.setattr("sys.stdin", None)
    assert run_command("listen", *arguments) == 1
    out, err = capsys.readouterr()
    assert err.count("\n") == 1 and not out and "hunter2" not in err


@pytest.mark.parametrize("arguments", [(), ("--mic=USB",), ("--list_mics",)], ids=" ".join)
@pytest.mark.parametrize("problem", ["no microphone", "PortAudio", "sounddevice"])
def test_without_microphones_one_line_tells(arguments, problem, monkeypatch, capsys) -> None:
    class Nothing:
        PortAudioError = ValueError
        default = type("Default", (), {"device": [-1, -1]})
        _initialize = _terminate = staticmethod(lambda: None)

        @staticmethod
        def query_devices(kind: str = "") -> list:
            if kind:
                raise ValueError
            return []

    class Finder:
        def find_spec(self, name: str, *rest: object) -> None:
            if name == "sounddevice":
                raise OSError if problem == "PortAudio" else ImportError

    monkeypatch.setitem(sys.modules, "sounddevice", Nothing)
    if problem != "no microphone":
        monkeypatch.delitem(sys.modules, "sounddevice")
        monkeypatch.setattr(sys, "meta_path", [Finder(), *sys.meta_path])
    assert run_command("listen", *arguments) == 1
    err = capsys.readouterr().err
    assert problem in err and err.count("\n") == 1


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "sat_jax", "listen", *map(str, arguments)]


def test_a_signal_ends_events_and_the_exit_code_is_0(tiny, rules, camera) -> None:
    flags = ("-m", tiny, "-c", 0.5, "--rules", rules, "--events", "--url", camera)
    with subprocess.Popen(
        command(*flags), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        start = json.loads(process.stdout.readline())
        assert start["kind"] == "start"
        process.send_signal(signal.SIGTERM)
        rest, err = process.communicate(timeout=60)
    end = json.loads(rest.splitlines()[-1])
    assert (end["kind"], end["id"], end["reason"]) == ("end", start["id"], "closed")
    assert process.returncode == 0 and err == ""


class Terminal:
    """A program on a terminal, and what a person sees of it."""

    def __init__(self, command: list[str], columns: int, lines: int) -> None:
        self.screen = Screen()
        self._master, other = pty.openpty()
        fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        # A session of its own, whose terminal it is, so that Ctrl-C reaches it.
        own = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0)"
        starter = [sys.executable, "-c", f"{own}; os.execv(sys.argv[1], sys.argv[1:])"]
        self.process = subprocess.Popen(
            [*starter, *command],
            cwd=ROOT,
            stdin=other,
            stdout=other,
            stderr=other,
            start_new_session=True,
        )
        os.close(other)
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        decoder = codecs.getincrementaldecoder("utf-8")()
        with contextlib.suppress(OSError):  # Linux's way to say that nobody writes any more.
            while data := os.read(self._master, 1 << 16):
                self.screen.write(decoder.decode(data))
        os.close(self._master)

    def press(self, key: bytes) -> None:
        os.write(self._master, key)

    def wait_for(self, pattern: str) -> None:
        for _ in range(600):
            if re.search(pattern, "\n".join(self.screen.lines)):
                return
            time.sleep(0.1)
        raise AssertionError("\n".join(self.screen.lines))

    def end(self) -> int:
        code = self.process.wait(20)
        self._thread.join(5)
        return code


@pytest.mark.slow
def test_a_terminal_that_cannot_draw_shows_lines(tiny, camera, monkeypatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    terminal = Terminal(command("-m", tiny, "-c", 0.5, "--url", camera), columns=80, lines=20)
    terminal.wait_for(r"Topk-1")
    terminal.press(b"\x03")
    assert terminal.end() == 0


@pytest.mark.slow
def test_a_person_sees_what_is_heard_and_ends_it_with_ctrl_c(tiny, rules, camera) -> None:
    flags = ("-m", tiny, "-c", 0.5, "-k", 2, "--rules", rules, "--url", camera)
    terminal = Terminal(command(*flags), columns=80, lines=20)
    terminal.wait_for(r"events\n\d\d:\d\d:\d\d  Speech +\d.\d\d  for \d+ s")
    terminal.wait_for(r"source +up\nlevel +█+░* +-\d+ dB  peak +-\d+\n\n.+█.* \d.\d\d")
    terminal.press(b"\x03")
    assert terminal.end() == 0
    screen = terminal.screen
    assert screen.is_restored and "hunter2" not in "\n".join(screen.lines)
    assert re.search(r"events\n\d\d:\d\d:\d\d  Speech +\d.\d\d  \d+ s", "\n".join(screen.lines))
