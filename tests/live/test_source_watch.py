"""Cameras and microphones of a server: no room for them, or far too much of their sound."""

import asyncio
import itertools
import threading
import time

import numpy as np

from sat_jax.live.engine import EngineLimits
from sat_jax.live.source_watch import SourceSettings, SourceWatch
from sat_jax.live.sources import SourceStatus
from tests.support.live_server import live_server, run

BLOCK = 1600


class FakeSource:
    """Brings blocks of silence, with so many seconds between them."""

    def __init__(self, pause):
        self.status = SourceStatus(up=True)
        self.pause, self.blocks, self.is_stopped = pause, 0, False

    def sound(self, sample_rate):
        while not self.is_stopped:
            self.blocks += 1
            yield np.zeros(BLOCK, np.float32)
            time.sleep(self.pause)

    def stop(self):
        self.is_stopped = True


async def until(condition):
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


def watch(hub, monkeypatch, source):
    monkeypatch.setattr("sat_jax.live.source_watch.open_source", lambda *_, **__: source)
    return SourceWatch(hub, {"yard": SourceSettings(url="tcp://h:1")})


async def end(sources):
    thread = sources._running["yard"].thread
    sources.stop()
    await asyncio.to_thread(thread.join)


@run
async def test_a_source_waits_for_room(monkeypatch):
    monkeypatch.setattr("sat_jax.live.source_watch._WAIT_FOR_ROOM", 0.01)
    async with live_server(limits=EngineLimits(max_streams=1)) as (_, hub):
        other = hub.open(name="other", source="test", rate=16_000)
        sources = watch(hub, monkeypatch, FakeSource(pause=0.01))
        await until(lambda: "taken" in sources.describe()[0]["error"])
        assert [session.name for session in hub.sessions.values()] == ["other"]
        hub.close(other)
        await until(lambda: [session.name for session in hub.sessions.values()] == ["yard"])
        await until(lambda: not sources.describe()[0]["error"])
        await end(sources)
        assert not hub.sessions


@run
async def test_a_source_that_sends_too_fast_waits(monkeypatch):
    limits = EngineLimits(max_streams=1, max_lag=1.0)
    async with live_server(limits=limits) as (_, hub):
        hub.engine.pause()
        source = FakeSource(pause=0.0)
        sources = watch(hub, monkeypatch, source)
        hop = hub.engine.hop
        most = 2 * (16_000 + hop) / BLOCK
        least = most - hop / BLOCK  # Up to a hop of silence comes first.
        seen = [source.blocks]
        for _ in itertools.takewhile(lambda _: seen[-1] < least, range(2000)):
            await asyncio.sleep(0.01)
            seen.append(source.blocks)
        await asyncio.sleep(0.3)
        assert least <= source.blocks <= most + 2
        [session] = hub.sessions.values()
        hub.close(session)  # Nobody waits for steps that never come.
        await end(sources)


def test_a_source_outlives_its_server(monkeypatch):
    source = FakeSource(pause=0.01)

    async def begin():
        async with live_server() as (_, hub):
            watch(hub, monkeypatch, source)
            await until(lambda: hub.sessions)

    asyncio.run(begin())
    [thread] = [each for each in threading.enumerate() if each.name == "source yard"]
    source.stop()
    thread.join(20)  # An error in it would fail this test.
    assert not thread.is_alive()
