"""A live server in the test's own event loop, with a tiny model."""

import asyncio
import contextlib
import functools
import json
import socket
import struct

import aiohttp
import numpy as np
from aiohttp.test_utils import TestClient, TestServer

from sat_jax.events.rules_file import RulesFile, to_struct
from sat_jax.live.app import App
from sat_jax.live.engine import EngineLimits
from sat_jax.live.hub import Hub
from sat_jax.live.security import Guard
from sat_jax.live.source_watch import SourceWatch
from sat_jax.tagger import Tagger
from tests.support.labelled_clips import tiny_checkpoint

CHUNK = 0.32


@functools.cache
def tiny_tagger():
    return Tagger(tiny_checkpoint(), chunk_seconds=CHUNK)


@contextlib.asynccontextmanager
async def live_server(
    *, rules=None, limits=None, token="", origins=(), resume_window=60.0, **app_options
):
    """Yields an HTTP client and the hub."""
    hub = Hub(
        tiny_tagger(),
        to_struct(rules or {}, RulesFile, "rules"),
        limits=limits or EngineLimits(max_streams=8, max_lag=1e6),
        resume_window=resume_window,
    )
    guard = Guard(token=token, allowed_origins=origins, trusted_proxies=[])
    app = App(hub, guard, sources=SourceWatch(hub, {}), **app_options)
    try:
        # Connections that a test aborts count for ever; the default limit is 100.
        connector = aiohttp.TCPConnector(limit=0)
        async with TestClient(TestServer(app.make()), connector=connector) as client:
            client.app_of_live = app
            yield client, hub
    finally:
        hub.engine.stop()


def run(test):
    """Lets a test be a coroutine."""

    @functools.wraps(test)
    def wrapped(*args, **kwargs):
        async def limited():
            async with asyncio.timeout(60):
                await test(*args, **kwargs)

        asyncio.run(limited())

    return wrapped


def free_port():
    """Returns a port of this machine that nobody uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Stream:
    """A client's end of a WebSocket."""

    def __init__(self, socket):
        self.socket = socket
        self.messages, self.probs, self.started = [], {}, None
        self.code = None

    @classmethod
    async def open(cls, client, **start):
        stream = cls(await client.ws_connect("/v1/stream"))
        await stream.send(type="start", **({"want": {"scores": "all"}} | start))
        stream.started = await stream.read()
        return stream

    async def send(self, **message):
        await self.socket.send_str(json.dumps(message))

    async def sound(self, samples, size=4000):
        for first in range(0, len(samples), size):
            await self.socket.send_bytes(samples[first : first + size].tobytes())

    async def read(self):
        """Returns the next message, or None after the end."""
        message = await self.socket.receive()
        if message.type.name == "TEXT":
            found = json.loads(message.data)
            self.messages.append(found)
            return found
        if message.type.name == "BINARY":
            chunk, count, _ = struct.unpack_from("<IId", message.data)
            self.probs[chunk] = np.frombuffer(message.data, "<f4", count, 16)
            return {"type": "scores", "chunk": chunk}
        self.code = self.socket.close_code
        return None

    async def read_until(self, kind):
        while (message := await self.read()) is not None:
            if message["type"] == kind:
                return message
        raise AssertionError(f"no {kind}: closed with {self.code}, {self.messages[-3:]}")

    async def finish(self):
        """Ends the stream, and returns its scores [k, y]."""
        await self.send(type="finish")
        await self.read_until("closed")
        while await self.read() is not None:
            pass
        return np.stack([self.probs[chunk] for chunk in sorted(self.probs)])

    def of(self, kind):
        return [message for message in self.messages if message["type"] == kind]


def noise(seed, seconds=2.0, rate=16_000, channels=1):
    rng = np.random.default_rng(seed)
    loud = rng.uniform(500, 9000) * rng.standard_normal((round(rate * seconds), channels))
    return loud.clip(-32768, 32767).astype("<i2")


def scores_alone(samples, rate=16_000):
    """The scores of a file with these samples, [k, y]."""
    sound = samples.astype(np.float32) / 32768
    return np.stack([chunk.probs for chunk in tiny_tagger().tag(sound, rate)])
