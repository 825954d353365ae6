"""A broker knows what sources hear, through crashes and restarts; Home Assistant finds them."""

import asyncio
import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sat_jax.errors import SatError
from sat_jax.events.rules_file import RulesFile, to_struct
from sat_jax.live import source_watch
from sat_jax.live.engine import EngineLimits
from sat_jax.live.hub import Hub
from sat_jax.live.outputs import Scores
from sat_jax.live.sinks import mqtt, sink
from sat_jax.live.sinks.mqtt import MqttSink, check_node, find_broker
from sat_jax.live.sinks.mqtt_payloads import Node, discovery, slugs
from sat_jax.live.source_watch import SourceSettings, SourceWatch
from sat_jax.tagger import Tagger
from tests.support.labelled_clips import tiny_checkpoint
from tests.support.sinks import (
    FakeSource,
    Home,
    Listener,
    Mosquitto,
    Stream,
    event,
    needs_mosquitto,
    run,
    running,
    until,
)

ROOT = Path(__file__).parents[2]
GOLDEN = Path(__file__).with_name("mqtt_discovery.json")
NODE = Node(version="1.2.3")
GARDEN = "sat/home/garden"
DEVICE = "homeassistant/device/sat_home_garden/config"


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr(sink, "PAUSES", (0.05,))


@pytest.fixture
def broker(tmp_path):
    with Mosquitto(tmp_path) as started:
        yield started


def sink_for(home, broker, report=lambda line: None, node=NODE):
    made = MqttSink(find_broker(f"mqtt://127.0.0.1:{broker.port}"), node, home, home, report)
    home.sinks.append(made)
    return made


# ---- Payloads.


def test_discovery_is_as_home_assistant_took_it():
    """Home Assistant 2025.4 has checked the golden messages by its own schemas."""
    sounds = ["Dog", "Baby cry, infant cry", "glass"]
    messages = {
        "device": discovery(NODE, "garden", sounds, removed=["rain"]),
        "legacy": discovery(Node(version="1.2.3", legacy=True), "garden", sounds, removed=["rain"]),
    }
    assert messages == json.loads(GOLDEN.read_text())
    assert discovery(Node(prefix=""), "garden", sounds) == {}


def test_words_for_topics():
    names = ["Dog", "Bow-wow", "Glass", "glass", "Käse", "犬", "鳥", "Bow wow"]
    words = slugs(names)
    assert [words[name] for name in names[:3]] == ["dog", "bow_wow", "glass"]
    assert words["Käse"] == "kase"
    assert len(set(words.values())) == len(names)
    assert all(re.fullmatch(r"[a-z0-9_]+", word) for word in words.values())
    assert slugs(["犬"])["犬"] == words["犬"]


@pytest.mark.parametrize("legacy", [False, True])
def test_each_entity_has_its_own_topics_and_id(legacy):
    sources = {"a": ["Dog", "b"], "a_b": ["Dog"], "a-b": ["event", "level"]}
    states, ids = [], []
    for source, sounds in sources.items():
        for message in discovery(Node(legacy=legacy), source, sounds).values():
            for entity in message.get("components", {"": message}).values():
                states.append(entity["state_topic"])
                ids.append(entity["unique_id"])
    assert len(set(states)) == len(states) == len(set(ids)) == 5 + 4 + 5


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("mqtt://host", ("host", 1883, False, "", "")),
        ("mqtts://me@host", ("host", 8883, True, "me", "")),
        ("mqtt://me:a%40b@[::1]:99/", ("::1", 99, False, "me", "a@b")),
    ],
)
def test_addresses_of_brokers(url, expected):
    found = find_broker(url)
    assert (found.host, found.port, found.is_encrypted, found.user, found.password) == expected
    assert "a@b" not in repr(found) + found.shown


@pytest.mark.parametrize(
    "url", ["host", "http://host", "mqtt://", "mqtt://:SECRET@host", "mqtt://u:SECRET@host:x"]
)
def test_addresses_that_are_none(url):
    with pytest.raises(SatError, match=r"mqtt\.url") as error:
        find_broker(url)
    assert "SECRET" not in str(error.value)


def test_password_files(tmp_path):
    file = tmp_path / "password"
    file.write_text("SECRET word \n")
    assert find_broker("mqtt://me@host", str(file)).password == "SECRET word "
    with pytest.raises(SatError, match="none"):
        find_broker("mqtt://me@host", str(tmp_path / "none"))


@pytest.mark.parametrize(
    ("key", "text", "named"),
    [
        ("name", "a/b", "mqtt.node=a/b"),
        ("name", "", "mqtt.node="),
        ("base", "+", "mqtt.base=+"),
        ("prefix", "a/#", "mqtt.discovery=a/#"),
    ],
)
def test_words_that_topics_cannot_have(key, text, named):
    with pytest.raises(SatError, match=re.escape(named)):
        check_node(Node(**{key: text}))


# ---- A real broker.


@needs_mosquitto
@run
async def test_a_broker_is_told_what_a_source_hears(broker):
    home = Home()
    async with Listener.at(broker.port) as listener:
        async with running(sink_for(home, broker)) as _:
            [made] = home.sinks
            await listener.wait("sat/home/availability", "online")
            assert (
                json.loads(listener.kept[DEVICE])
                == discovery(NODE, "garden", ["Dog", "Rain"])[DEVICE]
            )
            assert listener.kept[f"{GARDEN}/availability"] == "online"
            assert listener.kept[f"{GARDEN}/listen/state"] == "ON"
            assert listener.of(f"{GARDEN}/sound/dog/state") == ["OFF"]
            # All is known before anything is said to be available.
            assert listener.messages[-1][0] == "sat/home/availability"

            home.hear(made, "Dog")
            made.tell(home.streams["garden"], event())
            await listener.wait(f"{GARDEN}/sound/dog/state", "OFF", "ON")
            await until(lambda: listener.of(f"{GARDEN}/event"))
            made.tell(home.streams["garden"], event(number=1, muted=True))
            made.tell(home.streams["garden"], event("end", reason="quiet"))
            made.tell(Stream("garden", "websocket"), event(number=2))
            made.tell(Stream("attic"), event(number=3))
            scores = Scores(chunk=0, start=0, end=2, lag=0, rms=0.1, probs=np.zeros(2))
            made.tell(home.streams["garden"], scores)
            made.tell(home.streams["garden"], scores)
            home.hear(made)
            await listener.wait(f"{GARDEN}/sound/dog/state", "ON", "OFF")
            await until(lambda: listener.of(f"{GARDEN}/level"))
            [told] = listener.of(f"{GARDEN}/event")
            assert json.loads(told) == {
                "event_type": "Dog",
                "stream": "garden",
                **event().as_json(),
            }
            newest = json.loads(listener.kept[f"{GARDEN}/sound/dog/attributes"])
            assert newest == event("end", reason="quiet").as_json()
            assert listener.of(f"{GARDEN}/level") == ["-20.0"]
            assert listener.of(f"{GARDEN}/sound/rain/state") == ["OFF"]
        await listener.wait("sat/home/availability", "online", "offline")
    # Who comes later sees states, but no events and levels.
    async with Listener.at(broker.port) as late:
        await late.wait("sat/home/availability", "offline")
        await asyncio.sleep(0.2)
        assert DEVICE in late.kept and f"{GARDEN}/sound/dog/state" in late.kept
        assert not late.of(f"{GARDEN}/event") and not late.of(f"{GARDEN}/level")


@needs_mosquitto
@run
async def test_a_new_home_assistant_is_told_again(broker):
    home = Home()
    async with Listener.at(broker.port) as listener, running(sink_for(home, broker)):
        await listener.wait("sat/home/availability", "online")
        await listener.client.publish("homeassistant/status", "offline")
        await listener.client.publish("homeassistant/status", "online")
        await until(lambda: len(listener.of(DEVICE)) == 2)
        await until(lambda: len(listener.of(f"{GARDEN}/sound/dog/state")) == 2)


@needs_mosquitto
@run
async def test_other_rules_and_sources(broker):
    home = Home()
    async with Listener.at(broker.port) as listener, running(sink_for(home, broker)):
        [made] = home.sinks
        home.hear(made, "Dog")
        await listener.wait(f"{GARDEN}/sound/dog/state", "ON")
        await listener.wait("sat/home/availability", "online")
        home.watched["default"] = ["Rain", "Cat"]
        home.sources["attic"] = {"enabled": False, "up": False, "rules": "default"}
        await listener.wait("sat/home/attic/availability", "offline")
        await listener.wait(f"{GARDEN}/sound/dog/state", "")
        components = json.loads(listener.kept[DEVICE])["components"]
        assert components["sound_dog"] == {"platform": "binary_sensor"}
        assert components["sound_cat"]["name"] == "Cat"
        assert components["event"]["event_types"] == ["Rain", "Cat"]
        del home.sources["garden"]
        await listener.wait(DEVICE, "")
        await listener.wait(f"{GARDEN}/sound/rain/state", "")
        await until(lambda: not made.waiting)
    async with Listener.at(broker.port) as late:
        await late.wait("sat/home/availability", "offline")
        await asyncio.sleep(0.2)
        assert {topic.split("/")[2] for topic in late.kept} == {
            "availability",
            "attic",
            "sat_home_attic",
        }


@needs_mosquitto
@run
async def test_what_an_earlier_run_has_left(broker):
    home = Home("Dog", "Rain")
    home.sources["attic"] = dict(home.sources["garden"])
    home.streams["attic"] = Stream("attic")
    async with running(sink_for(home, broker)):
        [first] = home.sinks
        home.hear(first, "Dog", "Rain")
        home.hear(first, "Dog", name="attic")
        await until(lambda: first._retained.get("sat/home/availability") and not first.waiting)
    home = Home("Rain")
    async with running(sink_for(home, broker)), Listener.at(broker.port) as listener:
        await listener.wait("sat/home/availability", "online")
        await listener.wait(f"{GARDEN}/sound/rain/state", "OFF")
        attic = "homeassistant/device/sat_home_attic/config"
        await until(lambda: not any("dog" in t or "attic" in t for t, p in kept(listener)))
        components = json.loads(listener.kept[DEVICE])["components"]
        assert components["sound_dog"] == {"platform": "binary_sensor"}
        assert not listener.kept.get(attic)


def kept(listener):
    return [(topic, payload) for topic, payload in listener.kept.items() if payload]


@needs_mosquitto
@run
async def test_a_switch_in_home_assistant(broker):
    home = Home()
    async with Listener.at(broker.port) as listener:
        # A command that a broker has kept is of another day.
        await listener.client.publish(f"{GARDEN}/listen/set", "OFF", qos=1, retain=True)
        async with running(sink_for(home, broker)):
            await listener.wait(f"{GARDEN}/listen/state", "ON")
            await listener.wait("sat/home/availability", "online")
            for payload, state in (("OFF", "offline"), ("ON", "online")):
                await listener.client.publish(f"{GARDEN}/listen/set", payload)
                await listener.wait(f"{GARDEN}/listen/state", payload)
                await listener.wait(f"{GARDEN}/availability", state)
            for name, payload in (("garden", b"\xff"), ("x", "ON"), ("garden", "OFF")):
                await listener.client.publish(f"sat/home/{name}/listen/set", payload)
            await listener.wait(f"{GARDEN}/listen/state", "ON", "OFF")


@needs_mosquitto
@run
async def test_a_broker_that_restarts(tmp_path, monkeypatch):
    broker, home, told = Mosquitto(tmp_path), Home(), []
    made = sink_for(home, broker, report=told.append)
    async with running(made):
        await until(lambda: told)  # It is not there yet.
        made.tell(home.streams["garden"], event())
        broker.start()
        async with Listener.at(broker.port) as listener:
            await listener.wait("sat/home/availability", "online")
            await until(lambda: listener.of(f"{GARDEN}/event"))
        broker.stop()
        await until(lambda: len(told) == 3)
        home.hear(made, "Dog")
        made.tell(home.streams["garden"], event(number=1))
        monkeypatch.setattr(mqtt, "_LATE", 0.0)
        broker.start()
        async with Listener.at(broker.port) as listener:
            await listener.wait("sat/home/availability", "online")
            assert listener.kept[f"{GARDEN}/sound/dog/state"] == "ON"
            assert not listener.of(f"{GARDEN}/event")  # It came too late.
            assert made.dropped == 1
        assert len(told) == 4
        assert all(str(broker.port) in line for line in told)
    broker.stop()


@needs_mosquitto
@run
async def test_a_broker_that_hangs(broker, monkeypatch):
    monkeypatch.setattr(mqtt, "_TIMEOUT", 0.3)
    monkeypatch.setattr(mqtt, "_LAST_SECONDS", 0.1)
    home, told = Home(), []
    made = sink_for(home, broker, report=told.append)
    try:
        async with running(made) as task:
            await until(lambda: made._retained.get("sat/home/availability") and not made.waiting)
            broker.signal(signal.SIGSTOP)
            home.hear(made, "Dog")
            await until(lambda: len(told) == 2)
            broker.signal(signal.SIGCONT)
            async with Listener.at(broker.port) as listener:
                await listener.wait(f"{GARDEN}/sound/dog/state", "ON")
                await listener.wait("sat/home/availability", "online")
            broker.signal(signal.SIGSTOP)
            made._set(f"{GARDEN}/large", 30_000_000 * "x")  # More than the system sends ahead.
            await asyncio.sleep(0.05)
            task.cancel()
            await asyncio.wait([task])  # It ends all the same.
    finally:
        broker.signal(signal.SIGCONT)


@needs_mosquitto
@run
async def test_passwords(tmp_path):
    passwords = tmp_path / "passwords"
    subprocess.run(
        ["mosquitto_passwd", "-b", "-c", passwords, "me", "a SECRET"],
        check=True,
        capture_output=True,
    )
    passwords.chmod(0o600)
    file, told = tmp_path / "password", []
    file.write_text("a wrong SECRET\n")
    with Mosquitto(tmp_path, "allow_anonymous false", f"password_file {passwords}") as broker:

        def make():
            found = find_broker(f"mqtt://me@127.0.0.1:{broker.port}", str(file))
            return MqttSink(found, NODE, Home(), Home(), told.append)

        async with running(make()):
            await until(lambda: told)
            await asyncio.sleep(0.3)
        assert len(told) == 1
        file.write_text("a SECRET\n")
        login = {"username": "me", "password": "a SECRET"}
        async with Listener.at(broker.port, **login) as listener, running(make()):
            await listener.wait("sat/home/availability", "online")
        assert "SECRET" not in "".join(told)


PUBLISHER = """
import asyncio, sys
from sat_jax.live.sinks.mqtt import MqttSink, find_broker
from sat_jax.live.sinks.mqtt_payloads import Node
from tests.support.sinks import Home

async def main():
    home = Home()
    made = MqttSink(find_broker(f"mqtt://127.0.0.1:{sys.argv[1]}"), Node(), home, home, print)
    task = asyncio.create_task(made.run())
    await asyncio.sleep(0.1)
    home.hear(made, "Dog")
    await task

asyncio.run(main())
"""


@needs_mosquitto
@pytest.mark.slow
@run
async def test_a_server_that_is_killed(broker):
    state = f"{GARDEN}/sound/dog/state"
    async with Listener.at(broker.port) as listener:
        process = subprocess.Popen(
            [sys.executable, "-c", PUBLISHER, str(broker.port)], cwd=ROOT, stdout=subprocess.DEVNULL
        )
        await listener.wait(state, "ON")
        await listener.wait("sat/home/availability", "online")
        process.send_signal(signal.SIGKILL)
        process.wait()
        await listener.wait("sat/home/availability", "offline")
        assert listener.kept[state] == "ON"  # The broker keeps what is not true any more.
        async with running(sink_for(Home(), broker)):
            await listener.wait("sat/home/availability", "online")
            assert listener.kept[state] == "OFF"


# ---- With a real hub.


@needs_mosquitto
@pytest.mark.slow
@run
async def test_a_source_is_heard_switched_off_and_watched_by_other_rules(broker, monkeypatch):
    opened = []

    def open_source(url, *, channel):
        opened.append(FakeSource())
        return opened[-1]

    monkeypatch.setattr(source_watch, "open_source", open_source)
    rules = {"default": {"watch": ["Dog", "Rain"], "on": 0.0001, "off": 0.00005}}
    hub = Hub(
        Tagger(tiny_checkpoint(), chunk_seconds=0.32),
        to_struct({"rules": rules}, RulesFile, "rules"),
        limits=EngineLimits(max_streams=4, max_lag=1e6),
    )
    sources = SourceWatch(hub, {"garden": SourceSettings(url="rtsp://host/")})
    made = MqttSink(find_broker(f"mqtt://127.0.0.1:{broker.port}"), NODE, hub, sources, print)
    hub.sinks.append(made)
    noise = np.random.default_rng(1).standard_normal(16_000).astype(np.float32) * np.float32(0.1)
    try:
        async with Listener.at(broker.port) as listener, running(made):
            await listener.wait("sat/home/availability", "online")
            opened[-1].items.put(noise)
            await listener.wait(f"{GARDEN}/sound/dog/state", "OFF", "ON")
            await until(lambda: len(listener.of(f"{GARDEN}/event")) == 2)
            # Other rules.
            rules["default"] |= {"watch": ["Dog", "Cat"]}
            hub.set_rules(to_struct({"rules": rules}, RulesFile, "rules"))
            hub.watch_anew()
            await listener.wait(f"{GARDEN}/sound/cat/state", "OFF")
            await listener.wait(f"{GARDEN}/sound/rain/state", "")
            assert listener.kept[f"{GARDEN}/sound/dog/state"] == "OFF"
            newest = json.loads(listener.of(f"{GARDEN}/sound/dog/attributes")[-1])
            assert newest["reason"] == "reload"
            opened[-1].items.put(noise)
            await listener.wait(f"{GARDEN}/sound/cat/state", "ON")
            hub.watch_anew()  # They are the same.
            assert next(iter(hub.sessions.values())).on == {"Dog", "Cat"}
            # A switch.
            await listener.client.publish(f"{GARDEN}/listen/set", "OFF")
            await listener.wait(f"{GARDEN}/sound/cat/state", "OFF")
            await listener.wait(f"{GARDEN}/listen/state", "OFF")
            newest = json.loads(listener.of(f"{GARDEN}/sound/cat/attributes")[-1])
            assert newest["reason"] == "disabled"
            assert opened[-1].is_stopped
            assert not hub.sessions
    finally:
        sources.stop()
        await asyncio.sleep(0.1)
        hub.engine.stop()
