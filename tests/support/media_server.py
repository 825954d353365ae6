"""A web server on loopback with several files, for tests of downloads."""

import contextlib
import http.server
import io
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

RATE = 16_000
_TYPES = {".wav": "audio/x-wav", ".flac": "audio/flac", ".m4a": "audio/mp4", ".csv": "text/csv"}


class Server:
    """The files of a server by path, and how it answers."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.statuses: dict[str, int] = {}
        self.stalling: set[str] = set()  # The server stops in the middle of these files.
        self.gate: threading.Barrier | None = None  # All requests wait here for each other.
        self.release = threading.Event()  # Ends all stalls.
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.url = ""

    def paths(self) -> list[str]:
        """The requested paths."""
        return sorted({path for path, _ in self.requests})


class _Handler(http.server.BaseHTTPRequestHandler):
    state: Server

    def log_message(self, format: str, *args: Any) -> None:
        del format, args

    def do_GET(self) -> None:
        state, path = self.state, self.path.removeprefix("/")
        state.requests.append((path, dict(self.headers)))
        if state.gate:
            state.gate.wait()
        if path not in state.files:
            return self.send_error(state.statuses.get(path, 404))
        body = state.files[path]
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        first = int(asked[1]) if asked else 0
        last = int(asked[2]) + 1 if asked and asked[2] else len(body)
        self.send_response(206 if asked else 200)
        if asked:
            self.send_header("Content-Range", f"bytes {first}-{last - 1}/{len(body)}")
        self.send_header("ETag", '"v1"')
        self.send_header("Content-Type", _TYPES.get(Path(path).suffix, "text/html"))
        self.send_header("Content-Length", str(len(body[first:last])))
        self.end_headers()
        with contextlib.suppress(ConnectionError):
            self._send(body[first:last], stall=path in state.stalling)

    do_HEAD = do_GET

    def _send(self, body: bytes, *, stall: bool) -> None:
        if self.command == "HEAD":
            return
        if stall:
            self.wfile.write(body[: len(body) // 2])
            self.state.release.wait(300)
            body = body[len(body) // 2 :]
        self.wfile.write(body)


@contextlib.contextmanager
def serve_media(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Serves files while the context lasts, and takes all proxies out of the environment."""
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr("urllib.request._opener", None)
    state = Server()
    handler = type("_BoundHandler", (_Handler,), {"state": state})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        state.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield state
        finally:
            state.release.set()
            server.shutdown()
            thread.join()


def encode(sound: np.ndarray, rate: int = RATE, format: str = "WAV") -> bytes:
    """Returns a file of int16 samples."""
    file = io.BytesIO()
    soundfile.write(file, sound, rate, format=format, subtype="PCM_16")
    return file.getvalue()


def noise(seconds: float, rate: int = RATE, channels: int = 1) -> np.ndarray:
    """Returns int16 [s, channels]."""
    shape = (round(seconds * rate), channels)
    return np.random.default_rng(0).integers(-20_000, 20_000, shape).astype(np.int16)


def write_segments(path: Path, *rows: tuple[str, float, float]) -> Path:
    """Writes a segment list with (video id, start, end)."""
    lines = [f'{ytid}, {start:.3f}, {end:.3f}, "/m/03v3yw,/m/0k4j"\n' for ytid, start, end in rows]
    path.write_text("# Segments csv created\n" + "".join(lines), encoding="utf-8")
    return path
