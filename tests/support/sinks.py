"""What sinks are tested with: made-up streams and sources, an MQTT broker and a listener to it."""

import asyncio
import contextlib
import functools
import queue
import shutil
import socket
import subprocess
import time
from types import SimpleNamespace

import aiomqtt
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from sat_jax.events import EventMessage
from sat_jax.live.outputs import StateChange

needs_mosquitto = pytest.mark.skipif(
    shutil.which("mosquitto") is None, reason="mosquitto is not installed"
)


def run(test):
    """Lets a test be a coroutine."""

    @functools.wraps(test)
    def wrapped(*args, **kwargs):
        async def limited():
            async with asyncio.timeout(120):
                await test(*args, **kwargs)

        asyncio.run(limited())

    return wrapped


@contextlib.asynccontextmanager
async def running(sink):
    """Runs a sink, and yields its task."""
    task = asyncio.create_task(sink.run())
    await asyncio.sleep(0)  # Now it runs.
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            task.result()


async def until(condition):
    """Waits until a function returns something true, and returns that."""
    while not (found := condition()):
        await asyncio.sleep(0.01)
    return found


def event(kind="start", label="Dog", number=0, **changes):
    """A message about an event."""
    fields = {
        "kind": kind,
        "id": f"5e5510.{number}.0",
        "label": label,
        "index": 0,
        "mid": "/m/0bt9lr",
        "start": 34.0,
        "end": 36.0,
        "time": "2026-11-29T15:00:34.020+00:00",
        "resolution": 2.0,
        "delay": 2.06,
        "score": 0.88,
        "peak": 0.93,
        "mean": 0.87,
        "chunks": 1,
    }
    return EventMessage(**(fields | changes))


class Stream(SimpleNamespace):
    """What sinks need to know of a session."""

    def __init__(self, name="garden", source="rtsp", pace="realtime"):
        super().__init__(name=name, source=source, pace=pace, on=frozenset())

    @property
    def is_of_source(self):
        return self.source not in ("websocket", "upload")


class Home:
    """A hub and the sources of a server, without a model.

    Attributes:
      watched: names of sounds by rules.
      sources: what `describe` tells, by name.
    """

    def __init__(self, *watched):
        self.watched = {"default": list(watched or ("Dog", "Rain"))}
        self.sources = {"garden": {"enabled": True, "up": True, "rules": "default"}}
        self.streams = {"garden": Stream()}
        self.sinks = []

    @property
    def sessions(self):
        return self.streams

    def sounds(self, rules):
        return [SimpleNamespace(name=name) for name in self.watched[rules]]

    def describe(self):
        return [{"name": name} | described for name, described in self.sources.items()]

    def switch(self, name, enabled):
        if name in self.sources:
            self.sources[name] |= {"enabled": enabled, "up": enabled}
        return name in self.sources

    def hear(self, sink, *on, name="garden"):
        """Lets a source hear these sounds and no others."""
        stream = self.streams[name]
        before, stream.on = stream.on, frozenset(on)
        for sound in sorted(before ^ stream.on):
            sink.tell(stream, StateChange(name=sound, is_on=sound in stream.on))


class FakeSource:
    """A source of which a test sends the sound."""

    def __init__(self):
        self.status = SimpleNamespace(up=True, restarts=0, silent=False, error="")
        self.items = queue.Queue()
        self.is_stopped = False

    def sound(self, rate):
        del rate
        while not self.is_stopped:
            with contextlib.suppress(queue.Empty):
                yield self.items.get(timeout=0.02)

    def stop(self):
        self.is_stopped = True


class Receiver:
    """A web server that answers as it is told.

    Attributes:
      answers: statuses of the next requests, "hang" for none, "slow" for a late one; all others
        are 204.
      messages: events that were taken.
    """

    def __init__(self, *answers):
        self.answers, self.messages, self.requests = list(answers), [], 0
        app = web.Application()
        app.router.add_post("/hook/SECRET", self._take)
        self._server = TestServer(app)

    async def _take(self, request):
        self.requests += 1
        answer = self.answers.pop(0) if self.answers else 204
        if answer == "hang":
            await asyncio.sleep(60)
        if answer == "slow":
            await asyncio.sleep(0.3)
            answer = 204
        message = await request.json()
        if answer in (200, 204):
            self.messages.append(message)
        headers = {"Location": "/elsewhere"} if answer == 302 else {}
        return web.Response(status=answer, headers=headers)

    async def __aenter__(self):
        await self._server.start_server(shutdown_timeout=0.1)
        self.url = str(self._server.make_url("/hook/SECRET"))
        return self

    async def __aexit__(self, *error):
        await self._server.close()


class Mosquitto:
    """A broker of its own on a free port."""

    def __init__(self, folder, *lines):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self._config = folder / "mosquitto.conf"
        settings = [f"listener {self.port} 127.0.0.1", "persistence false", "user root", *lines]
        if not lines:
            settings.append("allow_anonymous true")
        self._config.write_text("\n".join(settings) + "\n")
        self._log = folder / "mosquitto.log"

    def start(self):
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [shutil.which("mosquitto"), "-v", "-c", self._config], stdout=log, stderr=log
            )
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            assert self._process.poll() is None, self._log.read_text()
            time.sleep(0.02)
        raise AssertionError(self._log.read_text())

    def signal(self, number):
        self._process.send_signal(number)

    def stop(self):
        self._process.terminate()
        self._process.wait(timeout=20)

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *error):
        self.stop()


class Listener:
    """Hears all that a broker tells.

    Attributes:
      messages: topic, payload and whether the broker had kept it, in their order.
      kept: the newest payload of each topic.
    """

    def __init__(self, client):
        self.client = client
        self.messages, self.kept = [], {}

    @classmethod
    @contextlib.asynccontextmanager
    async def at(cls, port, **login):
        async with aiomqtt.Client("127.0.0.1", port, **login) as client:
            listener = cls(client)
            await client.subscribe("#", qos=1)
            task = asyncio.create_task(listener._hear())
            try:
                yield listener
            finally:
                task.cancel()
                await asyncio.wait([task])

    async def _hear(self):
        async for message in self.client.messages:
            topic, payload = str(message.topic), message.payload.decode(errors="replace")
            self.messages.append((topic, payload, bool(message.retain)))
            self.kept[topic] = payload

    async def wait(self, topic, *payloads):
        """Waits until the newest payloads of a topic are these."""
        await until(lambda: tuple(self.of(topic)[-len(payloads) :]) == payloads)

    def of(self, topic):
        return [payload for name, payload, _ in self.messages if name == topic]
