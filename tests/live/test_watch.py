"""Streams that are watched over HTTP, what a browser is told, and the end of all of it."""

import asyncio
import json

import aiohttp
import numpy as np
import pytest

from sat_jax.tagger import Tagger
from tests.support.labelled_clips import tiny_checkpoint
from tests.support.page_server import LiveServer

TOKEN = "a token of some length"


@pytest.fixture(scope="module")
def tagger():
    return Tagger(tiny_checkpoint(), chunk_seconds=0.32)


@pytest.fixture(scope="module")
def server(tagger):
    made = LiveServer(tagger, None, TOKEN)
    yield made
    made.stop()


async def messages(answer, count):
    found = []
    async for line in answer.content:
        if line.startswith(b"data: "):
            found.append(json.loads(line.removeprefix(b"data: ")))
        if len(found) == count:
            break
    return found


def test_a_watcher_gets_what_was_told_and_what_follows(server):
    hop = server.hub.engine.hop
    sound = np.random.default_rng(1).standard_normal(4 * hop).astype(np.float32) * np.float32(0.1)

    async def watch():
        session = server.hub.open(name="kitchen", source="test", rate=16_000, pace="asap")
        told = []
        session.listeners.append(told.append)
        session.push(sound[: 2 * hop])
        while session.chunks < 2:
            await asyncio.sleep(0.01)
        async with (
            aiohttp.ClientSession() as http,
            http.get(server.url + "v1/streams/kitchen/watch?k=3") as answer,
        ):
            before = await messages(answer, 1 + len(told))
            session.push(sound[2 * hop :])
            session.finish()
            return before + [each async for each in _rest(answer)], told

    found, told = server.call(watch())
    assert found[0]["type"] == "started" and found[0]["name"] == "kitchen"
    scores = [each for each in found if each["type"] == "scores"]
    assert [each["chunk"] for each in scores] == [0, 1, 2, 3]
    expected = [each.probs for each in told if hasattr(each, "probs")]
    for each, probs in zip(scores, expected, strict=True):
        assert [index for index, _, _ in each["top"]] == list(np.argsort(-probs)[:3])
    assert found[-1] == {"type": "closed", "chunks": 4}


async def _rest(answer):
    async for line in answer.content:
        if line.startswith(b"data: "):
            yield json.loads(line.removeprefix(b"data: "))


@pytest.mark.parametrize(("path", "status"), [("none/watch", 404), ("a/watch?k=0", 400)])
def test_what_cannot_be_watched(server, path, status):
    async def ask():
        server.hub.open(name="a", source="test", rate=16_000)
        async with (
            aiohttp.ClientSession() as http,
            http.get(server.url + "v1/streams/" + path) as answer,
        ):
            return answer.status

    assert server.call(ask()) == status


def test_the_token_in_a_form_gives_a_cookie(server):
    async def ask():
        # A cookie of an address without a name is not kept otherwise.
        jar = aiohttp.CookieJar(unsafe=True)
        async with aiohttp.ClientSession(server.locked_url, cookie_jar=jar) as http:
            found = []
            for path, token in (("", None), ("login", "wrong"), ("login", TOKEN), ("", None)):
                form = {"token": token} if token else None
                asked = http.post(path, data=form) if token else http.get(path)
                async with asked as answer:
                    found.append((answer.status, 'type="password"' in await answer.text()))
                    assert answer.headers["Referrer-Policy"] == "same-origin"
            return found

    assert server.call(ask()) == [(200, True), (401, True), (200, False), (200, False)]


@pytest.mark.parametrize("name", ["index.html", "main.js", "engine.js", "style.css", "capture.js"])
def test_files_of_the_page(server, name):
    async def ask():
        async with (
            aiohttp.ClientSession() as http,
            http.get(server.locked_url + name) as answer,
        ):
            return answer.status, answer.headers["Content-Type"], await answer.text()

    status, kind, text = server.call(ask())
    assert status == 200 and kind.startswith("text/")
    assert "http://" not in text and "https://" not in text  # Nothing comes from elsewhere.


# The last one: the server has ended.
def test_a_server_stops_though_somebody_watches(server):
    async def begin():
        server.hub.open(name="a", source="test", rate=16_000)
        http = aiohttp.ClientSession()
        paths = ("v1/streams/a/watch", "v1/events")
        return http, [await http.get(server.url + path) for path in paths]

    http, answers = server.call(begin())
    server.call(server.disconnect())  # Waits for 10 minutes for requests that do not end.
    for answer in answers:
        answer.close()
    server.call(http.close())
