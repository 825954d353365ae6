"""A whole server tells file, webhook and broker what a source hears, until it stops."""

import asyncio
import json
import os
import signal

import numpy as np
import pytest

from sat_jax.live import source_watch
from sat_jax.live.config import read_live_file
from sat_jax.live.serve import Server
from sat_jax.tagger import Tagger
from tests.support.labelled_clips import tiny_checkpoint
from tests.support.sinks import (
    FakeSource,
    Listener,
    Mosquitto,
    Receiver,
    needs_mosquitto,
    run,
    until,
)

DEVICE = "homeassistant/device/sat_home_garden/config"
STATE = "sat/home/garden/sound/{}/state"


def settings(broker, receiver, watch, rules="default"):
    return f"""
events_file = "events.jsonl"
[server]
listen = "127.0.0.1:0"
max_streams = 2
[sources.garden]
url = "rtsp://host/"
rules = "{rules}"
[rules.default]
watch = {json.dumps(watch)}
on = 0.0001
[mqtt]
url = "mqtt://127.0.0.1:{broker.port}"
[webhook]
url = "{receiver.url}"
"""


@needs_mosquitto
@pytest.mark.slow
@run
async def test_a_server_from_start_to_stop(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SAT_JAX_CACHE", str(tmp_path))
    source, told, path = FakeSource(), [], tmp_path / "live.toml"
    monkeypatch.setattr(source_watch, "open_source", lambda url, *, channel: source)
    noise = np.random.default_rng(1).standard_normal(16_000).astype(np.float32) * np.float32(0.1)
    with Mosquitto(tmp_path) as broker:
        async with Receiver() as receiver, Listener.at(broker.port) as listener:
            path.write_text(settings(broker, receiver, ["Dog", "Rain"]))
            tagger = Tagger(tiny_checkpoint(), chunk_seconds=0.32)
            server = Server(
                tagger,
                read_live_file(path),
                read_again=lambda: read_live_file(path),
                report=told.append,
            )
            running = asyncio.create_task(server.run())
            await listener.wait("sat/home/availability", "online")
            source.items.put(noise)
            await listener.wait(STATE.format("rain"), "ON")
            await until(lambda: len(receiver.messages) == 2)

            # The rules are right, but the source wants others.
            path.write_text(settings(broker, receiver, ["Cat"], rules="none"))
            os.kill(os.getpid(), signal.SIGHUP)
            await until(lambda: any("none" in line for line in told))
            await asyncio.sleep(1.2)
            assert len(listener.of(DEVICE)) == 1
            assert listener.kept[STATE.format("rain")] == "ON"

            path.write_text(settings(broker, receiver, ["Dog", "Cat"]))
            os.kill(os.getpid(), signal.SIGHUP)
            await listener.wait(STATE.format("cat"), "OFF")
            await listener.wait(STATE.format("rain"), "")
            source.items.put(noise)
            await listener.wait(STATE.format("cat"), "ON")

            os.kill(os.getpid(), signal.SIGTERM)
            await running
            await listener.wait(STATE.format("cat"), "OFF")
            await listener.wait("sat/home/availability", "offline")
    lines = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert receiver.messages == lines
    kinds = [(line["label"], line["kind"], line.get("reason")) for line in lines]
    assert sorted(kinds[:4], key=str) == [
        ("Dog", "end", "reload"),
        ("Dog", "start", None),
        ("Rain", "end", "reload"),
        ("Rain", "start", None),
    ]
    assert [kind for _, kind, _ in kinds[4:]] == ["start", "start", "end", "end"]
