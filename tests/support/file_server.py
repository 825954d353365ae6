"""A web server on loopback that holds one file and fails as servers do."""

import contextlib
import dataclasses
import http.server
import re
import socket
import struct
import threading
from collections.abc import Iterator
from typing import Any


@dataclasses.dataclass(kw_only=True)
class Answer:
    """How the server answers one request.

    Attributes:
      status: sent instead of the file, unless 200.
      cut: bytes of the body after which the connection ends.
      reset: end it with a TCP reset.
      stall: stop sending without ending it.
    """

    status: int = 200
    cut: int | None = None
    reset: bool = False
    stall: bool = False


@dataclasses.dataclass(kw_only=True)
class Remote:
    """A file on a server, and what the server can do.

    Attributes:
      headers: sent with every answer that holds the body.
      ranges: understands Range.
      if_range: understands If-Range.
      range_shift: bytes by which it answers Range from a wrong place.
      answers: how to answer the next requests; all further ones succeed.
      claimed_extra: how much longer than true Content-Length is.
      framing: "length" sends Content-Length, "chunked" chunks, "close" neither.
      requests: path and headers of what was asked for.
      release: ends all stalls.
      url: where the file is; the server gives it for any path.
    """

    body: bytes
    headers: dict[str, str] = dataclasses.field(default_factory=lambda: {"ETag": '"v1"'})
    ranges: bool = True
    if_range: bool = True
    range_shift: int = 0
    answers: list[Answer] = dataclasses.field(default_factory=list)
    claimed_extra: int = 0
    framing: str = "length"
    requests: list[tuple[str, dict[str, str]]] = dataclasses.field(default_factory=list)
    release: threading.Event = dataclasses.field(default_factory=threading.Event)
    url: str = ""

    def ranges_asked(self) -> list[str | None]:
        """The Range header of each request."""
        return [headers.get("Range") for _, headers in self.requests]


class _Handler(http.server.BaseHTTPRequestHandler):
    remote: Remote

    def log_message(self, format: str, *args: Any) -> None:
        del format, args

    def do_GET(self) -> None:
        remote = self.remote
        remote.requests.append((self.path, dict(self.headers)))
        answer = remote.answers.pop(0) if remote.answers else Answer()
        if answer.status != 200:
            return self.send_error(answer.status)
        start = self._start_of_range(remote)
        if start and start >= len(remote.body):
            return self.send_error(416)
        body = self._send_head(remote, start)
        # The client may have been killed or have given up, as some tests want.
        with contextlib.suppress(ConnectionError):
            self._send_body(remote, answer, body)

    def _start_of_range(self, remote: Remote) -> int:
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        validators = [remote.headers.get(name) for name in ("ETag", "Last-Modified")]
        same = not remote.if_range or self.headers.get("If-Range") in validators
        return int(asked[1]) + remote.range_shift if asked and remote.ranges and same else 0

    def _send_head(self, remote: Remote, start: int) -> bytes:
        self.protocol_version = "HTTP/1.1"
        self.close_connection = True
        self.send_response(206 if start else 200)
        if start:
            total = len(remote.body)
            self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        for name, value in remote.headers.items():
            self.send_header(name, value)
        body = remote.body[start:]
        if remote.framing == "length":
            self.send_header("Content-Length", str(len(body) + remote.claimed_extra))
        if remote.framing == "chunked":
            self.send_header("Transfer-Encoding", "chunked")
            body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
        self.send_header("Connection", "close")
        self.end_headers()
        return body

    def _send_body(self, remote: Remote, answer: Answer, body: bytes) -> None:
        self.wfile.write(body[: answer.cut])
        if answer.stall:
            remote.release.wait(timeout=30)
        if answer.reset:
            linger = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.connection.close()


@contextlib.contextmanager
def serve(remote: Remote) -> Iterator[Remote]:
    """Serves `remote` on a free port while the context lasts, and sets its `url`."""
    handler = type("_BoundHandler", (_Handler,), {"remote": remote})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = False  # so that none outlives the context
        remote.url = f"http://127.0.0.1:{server.server_port}/weights.pt"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield remote
        finally:
            remote.release.set()
            server.shutdown()
            thread.join()
