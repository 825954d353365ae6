"""A live server in a thread, and a proxy in front of it."""

import asyncio
import contextlib
import itertools
import threading
from collections.abc import Iterator, Mapping

import aiohttp
import numpy as np
from aiohttp import web

from sat_jax.events.rules_file import RulesFile
from sat_jax.live.app import App
from sat_jax.live.engine import EngineLimits
from sat_jax.live.hub import Hub
from sat_jax.live.security import Guard
from sat_jax.live.source_watch import SourceSettings, SourceWatch
from sat_jax.stream_runner import StreamRunner


class LiveServer:
    """Two applications on one hub: at `url` for everyone, at `locked_url` with a token.

    Attributes:
      loop: runs both, in a thread.
      hub: has the streams.
      sources: cameras and microphones.
      apps: both.
    """

    def __init__(self, tagger: StreamRunner, thresholds: np.ndarray | None, token: str) -> None:
        """Starts both."""
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()
        self._runners: list[web.AppRunner] = []
        self.apps: list[App] = []
        self.call(self._start(tagger, thresholds, token), timeout=300)

    def call(self, work, *, timeout=60):
        """Runs a coroutine in the loop and returns its result."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(timeout)

    async def _start(self, tagger, thresholds, token):
        self.hub = Hub(tagger, RulesFile(), thresholds=thresholds, limits=EngineLimits())
        self.sources = SourceWatch(self.hub, {})
        self.url, self.locked_url = [await self._serve(each) for each in ("", token)]
        self._ticking = asyncio.ensure_future(self.hub.run())

    async def _serve(self, token):
        guard = Guard(token=token, allowed_origins=(), trusted_proxies=())
        app = App(self.hub, guard, sources=self.sources)
        self.apps.append(app)
        runner = web.AppRunner(app.make(), shutdown_timeout=600.0, handler_cancellation=True)
        await runner.setup()
        self._runners.append(runner)
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        return f"http://127.0.0.1:{runner.addresses[0][1]}/"

    def set_sources(self, settings: Mapping[str, SourceSettings]) -> None:
        """Hears these sources."""

        async def set_them() -> None:
            self.sources.set(settings)

        self.call(set_them())

    def stop(self) -> None:
        """Stops both."""
        self.call(self.disconnect())
        self.hub.engine.stop()
        self.loop.call_soon_threadsafe(self.loop.stop)

    async def disconnect(self) -> None:
        """Ends all requests."""
        self._ticking.cancel()
        for app in self.apps:
            app.is_ready = False
        while self._runners:
            await self._runners.pop().cleanup()


class Proxy:
    """Passes requests under /sat/ on, as a reverse proxy does, until it is cut.

    Attributes:
      url: of the page.
    """

    def __init__(self, server: LiveServer) -> None:
        """Starts it in the server's loop."""
        self._call, self._port = server.call, int(server.url.rsplit(":", 1)[1].strip("/"))
        self._ends: set[asyncio.StreamWriter] = set()
        self._is_cut = False
        self._listener = self._call(asyncio.start_server(self._pass, "127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.sockets[0].getsockname()[1]}/sat/"

    async def _pass(self, reader, writer):
        if self._is_cut:
            writer.close()
            return
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            assert b" /sat/" in head.splitlines()[0], head
            head = head.replace(b" /sat/", b" /", 1)
            if b"upgrade: websocket" not in head.lower():
                # Only the first request of a connection is rewritten.
                head = head.replace(b"Connection: keep-alive", b"Connection: close")
            to_reader, to_writer = await asyncio.open_connection("127.0.0.1", self._port)
            self._ends |= {writer, to_writer}
            to_writer.write(head)
            await asyncio.gather(_copy(reader, to_writer), _copy(to_reader, writer))
            self._ends -= {writer, to_writer}

    def cut(self, is_cut: bool = True) -> None:
        """Ends all connections and refuses others, or takes them again."""
        self._call(self._cut(is_cut))

    async def _cut(self, is_cut):
        self._is_cut = is_cut
        if is_cut:
            for end in self._ends:
                end.transport.abort()

    def stop(self) -> None:
        """Stops it."""
        self.cut()
        self._call(_close(self._listener))


async def _copy(reader, writer):
    with contextlib.suppress(OSError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    writer.close()


async def _close(listener):
    listener.close()


@contextlib.contextmanager
def send_stream(server: LiveServer, name: str, sound: np.ndarray, rate: int) -> Iterator[None]:
    """Sends float32 [s] over the WebSocket as a client does, again and again, in real time."""
    sending = asyncio.run_coroutine_threadsafe(_send(server, name, sound, rate), server.loop)
    yield
    sending.cancel()


async def _send(server, name, sound, rate):
    size = rate // 10
    data = (sound[: len(sound) // size * size] * 32_767).astype("<i2")
    blocks = [block.tobytes() for block in data.reshape(-1, size)]
    async with (
        aiohttp.ClientSession() as http,
        http.ws_connect(server.url + "v1/stream") as socket,
    ):
        await socket.send_json({"type": "start", "rate": rate, "name": name})
        for block in itertools.cycle(blocks):
            await socket.send_bytes(block)
            await asyncio.sleep(0.1)
