"""Events reach files and webhooks, whatever disks and servers do."""

import asyncio
import contextlib
import errno
import json
import os
import resource

import pytest
from aiohttp.test_utils import TestServer

from sat_jax.errors import SatError
from sat_jax.live.outputs import StateChange
from sat_jax.live.sinks import sink, webhook
from sat_jax.live.sinks.json_lines import JsonLines
from sat_jax.live.sinks.sink import NewestQueue
from sat_jax.live.sinks.webhook import Webhook, WebhookSettings
from tests.support.live_server import free_port
from tests.support.sinks import Receiver, Stream, event, run, running, until


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr(sink, "PAUSES", (0.01, 0.05))


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def ids(messages):
    return [int(message["id"].split(".")[1]) for message in messages]


def test_a_full_queue_keeps_the_newest():
    queue = NewestQueue(3)
    for number in range(5):
        queue.put(number)
    assert (len(queue), queue.dropped) == (3, 2)
    assert queue.take() == 2
    queue.put_back([0, 1])
    assert (queue.take_all(), queue.dropped) == ([1, 3, 4], 3)


# ---- Files.


@run
async def test_a_line_for_each_event(tmp_path):
    path = tmp_path / "new" / "events.jsonl"
    lines = JsonLines(path, report=pytest.fail)
    async with running(lines):
        told = [event("start"), event("update"), event("end", reason="quiet", muted=True)]
        for message in told:
            lines.tell(Stream(), message)
        lines.tell(Stream(), StateChange(name="Dog", is_on=True))
        lines.tell(Stream("a.wav", "upload", "asap"), event())
        await until(lambda: path.exists() and len(read(path)) == 3)
        path.rename(tmp_path / "old.jsonl")
        lines.tell(Stream("hall", "websocket"), event(number=7))
    assert read(tmp_path / "old.jsonl") == [{"stream": "garden"} | m.as_json() for m in told]
    assert read(path) == [{"stream": "hall"} | event(number=7).as_json()]


@pytest.mark.parametrize(
    ("before", "after"),
    [(b'{"a": 1}\n{"stream": "gar', b'{"a": 1}\n'), (b"a note", b"a note\n"), (b"", b"")],
)
@run
async def test_a_line_that_a_crash_has_cut(tmp_path, before, after):
    path = tmp_path / "events.jsonl"
    path.write_bytes(before)
    lines = JsonLines(path, report=pytest.fail)
    async with running(lines):
        lines.tell(Stream(), event())
    data = path.read_bytes()
    assert data.startswith(after)
    assert json.loads(data[len(after) :])["stream"] == "garden"


@contextlib.contextmanager
def largest_file(size):
    """Lets the system refuse to write more than these bytes to a file, as on a full disk."""
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))


@run
async def test_a_full_disk_is_told_once_and_events_wait(tmp_path):
    path, told = tmp_path / "events.jsonl", []
    lines = JsonLines(path, report=told.append)
    async with running(lines):
        with largest_file(800):
            for number in range(5):
                lines.tell(Stream(), event(number=number))
            await until(lambda: told)
            await asyncio.sleep(0.2)
            assert len(told) == 1 and str(path) in told[0]
            assert ids(read(path)) == [0, 1]
            assert lines.waiting == 3
        await until(lambda: len(told) == 2)
    assert ids(read(path)) == [0, 1, 2, 3, 4]


def test_a_file_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(SatError, match="file"):
        JsonLines(tmp_path / "file" / "events.jsonl", report=pytest.fail)


# ---- Webhooks.


@contextlib.asynccontextmanager
async def posting(url, **settings):
    """Yields a webhook and what it reports."""
    told = []
    hook = Webhook(WebhookSettings(url=url, **settings), report=told.append)
    async with running(hook):
        yield hook, told
    assert not any("SECRET" in line for line in told)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [({}, [0, 2]), ({"updates": True}, [0, 1, 2]), ({"muted": True}, [0, 2, 3, 5])],
)
@run
async def test_events_are_posted(settings, expected):
    kinds = ("start", "update", "end")
    async with Receiver() as receiver, posting(receiver.url, **settings) as (hook, told):
        hook.tell(Stream("a.wav", "upload", "asap"), event())
        for number in range(6):
            kind, muted = kinds[number % 3], number > 2
            hook.tell(Stream(), event(kind, number=number, muted=muted))
        await until(lambda: len(receiver.messages) == len(expected))
        assert ids(receiver.messages) == expected
        assert receiver.messages[0] == {"stream": "garden"} | event().as_json()
        assert (told, hook.dropped) == ([], 0)


@run
async def test_a_server_that_is_not_there_is_told_in_words():
    async with posting(f"http://127.0.0.1:{free_port()}/") as (hook, told):
        hook.tell(Stream(), event())
        await until(lambda: told)
        assert os.strerror(errno.ECONNREFUSED) in told[0]


@run
async def test_a_server_that_fails_gets_the_events_later(monkeypatch):
    monkeypatch.setattr(webhook, "_TIMEOUT", 0.2)
    async with (
        Receiver(500, "hang", 429, 503) as receiver,
        posting(receiver.url) as (hook, told),
    ):
        for number in range(3):
            hook.tell(Stream(), event(number=number))
        await until(lambda: len(receiver.messages) == 3)
        assert ids(receiver.messages) == [0, 1, 2]
        assert receiver.requests == 7
        assert (len(told), hook.dropped, hook.waiting) == (2, 0, 0)
        assert "500" in told[0]


@pytest.mark.parametrize("status", [302, 404])
@run
async def test_what_a_server_refuses_is_not_sent_again(status):
    async with Receiver(status, status) as receiver, posting(receiver.url) as (hook, told):
        for number in range(3):
            hook.tell(Stream(), event(number=number))
        await until(lambda: receiver.messages)
        assert ids(receiver.messages) == [2]
        assert (receiver.requests, hook.dropped) == (3, 2)
        assert len(told) == 1 and str(status) in told[0]


@run
async def test_a_server_that_is_not_there_yet(unused_port, monkeypatch):
    monkeypatch.setattr(webhook, "_QUEUE", 2)
    async with posting(f"http://127.0.0.1:{unused_port}/hook/SECRET") as (hook, told):
        for number in range(4):
            hook.tell(Stream(), event(number=number))
        await until(lambda: told)
        receiver = Receiver()
        receiver._server = TestServer(receiver._server.app, port=unused_port)
        async with receiver:
            await until(lambda: len(receiver.messages) == 2)
        assert ids(receiver.messages) == [2, 3]
        assert (hook.dropped, len(told)) == (2, 2)
        assert f"127.0.0.1:{unused_port}" in told[0]


@run
async def test_a_slow_server_gets_what_is_left_at_the_end(monkeypatch):
    async with Receiver() as receiver:
        async with posting(receiver.url) as (hook, _):
            for number in range(3):
                hook.tell(Stream(), event(number=number))
        assert ids(receiver.messages) == [0, 1, 2]
    async with Receiver("slow") as receiver:
        async with posting(receiver.url) as (hook, _):
            for number in range(3):
                hook.tell(Stream(), event(number=number))
            await until(lambda: receiver.requests)
        assert ids(receiver.messages) == [0, 1, 2]
        assert receiver.requests == 3
    monkeypatch.setattr(webhook, "_LAST_SECONDS", 0.1)
    async with Receiver("hang", "hang") as receiver, posting(receiver.url) as (hook, told):
        hook.tell(Stream(), event())
        await until(lambda: receiver.requests)
    assert len(told) == 1


@pytest.fixture
def unused_port():
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.parametrize("url", ["", "hook", "ftp://host/hook", "http://", "http://host:x/"])
def test_addresses_that_are_none(url):
    with pytest.raises(SatError, match=r"webhook\.url"):
        Webhook(WebhookSettings(url=url), report=pytest.fail)
