"""The command: starts, reloads, stops and starts again, in processes of its own."""

import asyncio
import contextlib
import io
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import aiohttp
import numpy as np
import pytest
import soundfile

from sat_jax.weights.checkpoint import save_checkpoint
from tests.support.labelled_clips import tiny_checkpoint
from tests.support.live_server import Stream, free_port, noise, run
from tests.support.programs import run_command


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "tiny"
    save_checkpoint(folder, tiny_checkpoint())
    return folder


@pytest.fixture(autouse=True)
def _hears_hangups():
    """Servers inherit what this process does with the signal, and nohup ignores it."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


class Process:
    """A running server and its lines."""

    def __init__(self, *arguments, cache):
        environment = os.environ | {"SAT_JAX_CACHE": str(cache), "JAX_PLATFORMS": "cpu"}
        environment["TMPDIR"] = str(cache)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "sat_jax", "serve", *map(str, arguments)],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )

    def line(self):
        return self._process.stderr.readline()

    def line_with(self, text):
        """Reads lines until one has the text, and returns it."""
        while text not in (line := self.line()):
            assert line, f"ended without {text!r}"
        return line

    def signal(self, number):
        self._process.send_signal(number)

    def wait(self):
        with self._process:
            try:
                return self._process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                self._process.kill()  # Leaving the block would wait for ever.
                raise


@contextlib.contextmanager
def serving(*arguments, cache):
    process = Process(*arguments, cache=cache)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.signal(signal.SIGKILL)
        process.wait()


def test_sigterm_ends_a_start_cleanly(tmp_path):
    config = tmp_path / "live.toml"
    os.mkfifo(config)
    # Opening waits until the server reads its settings, which never end.
    with serving("--config", config, cache=tmp_path) as process, config.open("w"):
        process.signal(signal.SIGTERM)
        assert process.wait() == 0


@run
async def test_a_restart_under_load_loses_nothing(model, tmp_path):
    config, port = tmp_path / "live.toml", free_port()
    config.write_text(
        f'model = "{model}"\n[server]\nlisten = "127.0.0.1:{port}"\nmax_streams = 4\nmax_lag = 60\n'
    )
    samples = [noise(k, 6.0) for k in range(3)]
    streams = []
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as client:
        with serving("--config", config, cache=tmp_path) as process:
            assert f"http://127.0.0.1:{port}" in await asyncio.to_thread(process.line)
            streams = [await Stream.open(client) for _ in samples]
            for stream, sound, count in zip(
                streams, samples, (30_000, 37_777, 45_555), strict=True
            ):
                await stream.sound(sound[:count])
            config.write_text("rules = 3\n")
            process.signal(signal.SIGHUP)
            assert "rules" in await asyncio.to_thread(process.line)
            process.signal(signal.SIGTERM)
            for stream in streams:
                while await stream.read() is not None:
                    pass
                assert stream.code == 1001
            assert await asyncio.to_thread(process.wait) == 0
        config.write_text(f'model = "{model}"\n[server]\nmax_streams = 4\nmax_lag = 60\n')
        listen = f"--listen=127.0.0.1:{port}"
        yard = "--source=yard=tcp://127.0.0.1:1"
        with serving("--config", config, listen, yard, cache=tmp_path) as process:
            assert "3 streams" in await asyncio.to_thread(process.line)
            await asyncio.to_thread(process.line_with, "listening")
            for old, sound in zip(streams, samples, strict=True):
                hop = old.started["hop"]
                back = await Stream.open(
                    client, resume=old.started["resume"], position=hop * len(old.probs)
                )
                await back.sound(sound[back.started["position"] :])
                await back.finish()
                found = old.probs | back.probs
                assert sorted(found) == list(range(len(found)))
                np.testing.assert_allclose(
                    np.stack([found[k] for k in sorted(found)]), whole(sound), atol=1e-6
                )
            assert "refused" in await asyncio.to_thread(process.line_with, "sources.yard: ")
            config.write_text(f'model = "{model}"\n[server]\nmax_streams = 5\nmax_lag = 60\n')
            process.signal(signal.SIGHUP)
            await asyncio.to_thread(process.line_with, "read rules and sources again")
            assert "server" in await asyncio.to_thread(process.line_with, "restart the server")
            async with client.get("/v1/streams") as response:
                assert [each["name"] for each in (await response.json())["sources"]] == ["yard"]


@run
async def test_sound_is_never_stored(model, tmp_path):
    folder, config, port = tmp_path / "written", tmp_path / "live.toml", free_port()
    folder.mkdir()
    config.write_text(
        f'model = "{model}"\nchunk = 0.32\nevents_file = "{folder}/events.jsonl"\n'
        f'[server]\nlisten = "127.0.0.1:{port}"\nmax_streams = 4\n'
        '[rules.default]\nwatch = ["loud"]\n'
    )
    samples = noise(0, 2.9)
    recording = io.BytesIO()
    soundfile.write(recording, samples, 16_000, format="WAV", subtype="PCM_16")
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as client:
        with serving("--config", config, cache=folder) as process:
            assert "listening" in await asyncio.to_thread(process.line)
            async with client.post("/v1/tag", data=recording.getvalue()) as response:
                assert response.status == 200
            stream = await Stream.open(client)
            await stream.sound(samples)
            await stream.send(type="mark", id="")
            await stream.read_until("marked")
            process.signal(signal.SIGTERM)
            assert await asyncio.to_thread(process.wait) == 0
    written = [path.read_bytes() for path in folder.rglob("*") if path.is_file()]
    assert any(b"loud" in data for data in written)  # The events.
    assert any(stream.started["resume"].encode() in data for data in written)  # The stream.
    forms = [samples.astype(dtype) for dtype in ("<i2", "<f4", "<f8")]
    forms += [(samples / 32768).astype(dtype) for dtype in ("<f4", "<f8")]
    assert forms[0][:16].tobytes() in recording.getvalue()
    for form in forms:
        for first in range(0, len(form) - 16, 16):
            part = form[first : first + 16].tobytes()
            assert not any(part in data for data in written)


def whole(samples):
    from sat_jax.tagger import Tagger

    tagger = Tagger(tiny_checkpoint())
    return np.stack([c.probs for c in tagger.tag(samples.astype(np.float32) / 32768)])


@pytest.mark.parametrize(
    ("text", "arguments", "code", "named"),
    [
        ("[server]\nlist = 1", [], 1, "list"),
        ('model = "SAT_XXS"', [], 1, "SAT_XXS"),
        ("chunk = 0.1", [], 1, "chunk"),
        ("[server]\nmax_streams = -1", [], 1, "max_streams"),
        ("[server]\nmax_lag = 0", [], 1, "max_lag"),
        ("[server]\nmax_upload = 0", [], 1, "max_upload"),
        ("[server]\nidle_timeout = -1", [], 1, "idle_timeout"),
        ("[server]\nresume_window = -0.1", [], 1, "resume_window"),
        ('[server]\nallowed_origins = ["https://a.example/"]', [], 1, "https://a.example/"),
        ('[server]\nallowed_origins = ["a.example"]', [], 1, "a.example"),
        ('[server]\ntrusted_proxies = ["10.0.0.0/8"]', [], 1, "10.0.0.0/8"),
        ('[server]\nlisten = "0.0.0.0:1"', [], 1, "token_file"),
        ('[sources.yard]\nurl = "rtsp://${NOT_SET}@h/"', [], 1, "NOT_SET"),
        ("[rules.yard]\nwach = []", [], 1, "rules.yard"),
        ('[sources.yard]\nurll = "mic:"', [], 1, "sources.yard"),
        ("", ["--source", "yard"], 2, "NAME=URL"),
        ("", ["--mic", "--source", "mic=tcp://h:1"], 2, "mic already"),
        ("", ["--source", "yard=file:x.wav"], 1, "sources.yard: 'file:x.wav'"),
        ('[sources.yard]\nurl = "mic:"\nchannel = -1', [], 1, "sources.yard.channel"),
        ('[sources.yard]\nurl = "tcp://${HOME"', [], 1, "sources.yard.url"),
        ('[groups]\ndoor = ["Doorbel"]', [], 1, "groups.door"),
        ('[server]\ntoken_file = "/nosuch"', [], 1, "/nosuch: No such file"),
        ("", ["--listen", "here"], 1, "HOST:PORT"),
        ("", ["street.wav"], 2, "street.wav"),
        ('[rules.default]\nwatch = ["Dogg"]', [], 1, "Dogg"),
    ],
)
def test_wrong_settings(tmp_path, capsys, text, arguments, code, named):
    config = tmp_path / "live.toml"
    config.write_text(text)
    assert run_command("serve", "--config", config, *arguments) == code
    error = capsys.readouterr().err
    assert named in error and error.count("\n") == 1


def test_a_port_that_is_taken(tmp_path, capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        # No model is loaded before.
        assert run_command("serve", "-m", tmp_path / "none", "--listen", address) == 1
    assert address in capsys.readouterr().err


def test_a_second_signal_ends_a_server_that_waits_for_an_upload(model, tmp_path):
    with serving("-m", model, "--listen=127.0.0.1:0", cache=tmp_path) as process:
        port = int(re.search(r"127\.0\.0\.1:(\d+)", process.line())[1])
        with socket.create_connection(("127.0.0.1", port)) as client:
            head = f"POST /v1/tag HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: 99\r\n"
            client.sendall(f"{head}Expect: 100-continue\r\n\r\n".encode())
            assert b"100 Continue" in client.recv(99)  # Now it waits for the file.
            process.signal(signal.SIGTERM)
            assert client.recv(0) == b"" and not is_listening(port)
            process.signal(signal.SIGTERM)
            assert process.line() == ""
            assert process.wait() == 130


def is_listening(port):
    """Waits until a port is closed."""
    for _ in range(200):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            return False
        time.sleep(0.05)
    return True


def test_a_free_port_and_a_closed_terminal(model, tmp_path):
    flags = ("-m", model, "--listen=127.0.0.1:0")
    with serving(*flags, cache=tmp_path) as process:
        address = re.search(r"http://127\.0\.0\.1:\d+", process.line())[0]
        with urllib.request.urlopen(f"{address}/readyz", timeout=20) as response:
            assert response.status == 200
        process.signal(signal.SIGHUP)
        assert process.wait() == 0
