"""Settings of sinks: what a file may say, and what is made of it."""

import asyncio
import re
from pathlib import Path

import pytest

from sat_jax.errors import SatError
from sat_jax.events import watched_sounds
from sat_jax.labels import default_label_names
from sat_jax.live.config import LiveFile, MqttTable, WebhookTable, read_live_file
from sat_jax.live.serve import make_sinks, run_sinks
from tests.support.sinks import Home, run

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "deploy/live.toml"
PAGE = ROOT / "docs/home_automation.md"
VARIABLES = {"GARDEN_PASSWORD": "a", "HOOK_SECRET": "b"}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "mqtt_password").write_text("SECRET\n")
    return tmp_path


def write(folder, text):
    path = folder / "live.toml"
    path.write_text(text)
    return path


def check(settings):
    labels = default_label_names(527)
    for name in settings.rules:
        assert watched_sounds(settings.named(name), labels)
    return list(settings.source_settings())


def test_the_example_as_it_is_and_with_all_that_it_offers(folder):
    assert check(read_live_file(EXAMPLE)) == []
    everything = re.sub(r"^## ", "", EXAMPLE.read_text(), flags=re.M)
    settings = read_live_file(write(folder, everything))
    assert check(settings) == ["garden", "porch", "hall", "nursery"]
    assert settings.webhook_settings().url == "https://hooks.example.org/b"
    broker, node = settings.mqtt_settings()
    assert (broker.host, broker.user, broker.password) == ("192.168.1.10", "sat", "SECRET")
    assert node.name == "home"


def test_the_settings_on_the_page(folder):
    blocks = re.findall(r"^ *```toml\n(.*?)^ *```$", PAGE.read_text(), re.M | re.S)
    for block in blocks:
        check(read_live_file(write(folder, block)))
    assert len(blocks) == 3


@run
async def test_sinks_of_settings(folder):
    settings = LiveFile(
        events_file="events.jsonl",
        mqtt=MqttTable(url="mqtt://me@host", password_file="mqtt_password"),
        webhook=WebhookTable(url="http://host/"),
    )
    home = Home()
    names = [sink.name for sink in make_sinks(settings, home, home, pytest.fail)]
    assert names == ["events_file", "webhook", "mqtt"]
    assert make_sinks(LiveFile(), home, home, pytest.fail) == []


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('[mqtt]\nurl = "host"', "mqtt.url"),
        ('[mqtt]\nurl = "mqtt://${NOT_SET_HERE}"', "NOT_SET_HERE"),
        ('[mqtt]\nurl = "mqtt://me@host"\npassword_file = "none"', "none"),
        ('[mqtt]\nurl = "mqtt://host"\nnode = "my home"', "mqtt.node=my home"),
        ('[mqtt]\nurl = "mqtt://host"\nclient = "x"', "client"),
        ('[webhook]\nurl = "host"', "webhook.url"),
        ("[webhook]", "url"),
        ('events_file = "live.toml/events"', "live.toml"),
    ],
)
@run
async def test_settings_that_are_wrong(folder, text, named):
    home = Home()
    with pytest.raises(SatError, match=re.escape(named)):
        make_sinks(read_live_file(write(folder, text)), home, home, pytest.fail)


class Broken:
    name = "broken"

    async def run(self):
        raise ValueError("a fault")


class Working:
    name = "working"
    ended = False

    def __init__(self, last_seconds=0.0):
        self.last_seconds = last_seconds

    async def run(self):
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(self.last_seconds)
            self.ended = True


@run
async def test_a_sink_with_a_fault_does_not_end_the_others():
    told, working = [], Working(0.1)
    task = asyncio.create_task(run_sinks([Broken(), Working(), working], told.append))
    await asyncio.sleep(0.01)
    assert len(told) == 1 and "broken" in told[0]
    assert not working.ended
    task.cancel()
    await asyncio.wait([task])
    assert working.ended
