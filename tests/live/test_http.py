"""The HTTP side: files, events, figures, and who may use it."""

import asyncio
import functools
import io
import json

import aiohttp
import numpy as np
import pytest
import soundfile
from prometheus_client.parser import text_string_to_metric_families

from sat_jax.errors import SatError
from sat_jax.live import app as app_module
from sat_jax.live import uploads
from sat_jax.live.config import ServerTable, expand, parse_address, read_live_file
from sat_jax.live.feed import EventFeed
from sat_jax.live.serve import check_access
from tests.support.live_server import Stream, live_server, noise, run, scores_alone, tiny_tagger

EVERYTHING = {"rules": {"default": {"on": 0.05, "off": 0.04}}}


def wav(samples, rate=16_000):
    data = io.BytesIO()
    soundfile.write(data, samples, rate, format="WAV", subtype="PCM_16")
    return data.getvalue()


@run
async def test_an_uploaded_file_gets_its_tags():
    samples = noise(1, 1.5, rate=44_100, channels=2)
    form = aiohttp.FormData()
    form.add_field("file", wav(samples, 44_100), filename="street.wav")
    async with live_server(rules=EVERYTHING) as (client, hub):
        for data, name in ((wav(samples, 44_100), "upload"), (form, "street.wav")):
            async with client.post("/v1/tag?k=2", data=data) as response:
                assert response.status == 200
                found = await response.json()
            expected = scores_alone(samples, 44_100)
            assert (found["file"], len(found["chunks"])) == (name, len(expected))
            for chunk, probs in zip(found["chunks"], expected, strict=True):
                best = np.argsort(-probs, kind="stable")[:2]
                assert [row[0] for row in chunk["top"]] == best.tolist()
            assert {event["kind"] for event in found["events"]} == {"end"}
        assert hub.engine.used == 0


@pytest.mark.parametrize(
    ("query", "data", "status", "named"),
    [
        ("", b"this is no sound", 422, "upload"),
        ("", b"", 400, "file"),
        ("?k=0", b"x", 400, "k"),
        ("", bytes(3000), 413, ""),
    ],
)
@run
async def test_what_is_not_a_file(query, data, status, named):
    async with (
        live_server(max_upload=2000) as (client, hub),
        client.post(f"/v1/tag{query}", data=data) as response,
    ):
        text = await response.text()
        assert response.status == status and named in text
        assert text.count("\n") <= 1 and "/tmp" not in text
        assert hub.engine.used == 0


@pytest.mark.parametrize(("pause", "status"), [(0.0, 200), (0.04, 408)])
@run
async def test_an_upload_must_not_trickle(monkeypatch, pause, status):
    monkeypatch.setattr(uploads, "_PATIENCE", 0.3)
    data = wav(noise(1, 1.0))

    async def body():
        for first in range(0, len(data), 200):  # With the pause, 5 kB a second.
            yield data[first : first + 200]
            await asyncio.sleep(pause)

    async with live_server() as (client, _):
        try:
            async with client.post("/v1/tag", data=body()) as response:
                assert response.status == status
                assert ("10 kB a second" in await response.text()) == (status == 408)
        except aiohttp.ClientConnectionError:
            assert status == 408  # The server hung up while the client still sent.


@run
async def test_uploads_that_wait_do_not_keep_others_out(monkeypatch):
    monkeypatch.setattr(app_module, "Uploads", functools.partial(uploads.Uploads, received=9))
    async with live_server() as (client, _):
        waiting = []
        for _ in range(8):
            reader, writer = await asyncio.open_connection(client.host, client.port)
            head = "POST /v1/tag HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n"
            writer.write(f"{head}Expect: 100-continue\r\n\r\n".encode())
            assert b"100 Continue" in await reader.read(99)
            waiting.append((reader, writer))
        async with client.post("/v1/tag", data=wav(noise(1))) as response:
            assert response.status == 200
        more = asyncio.open_connection(client.host, client.port)
        waiting.append(await more)
        waiting[-1][1].write(f"{head}Expect: 100-continue\r\n\r\n".encode())
        assert b"100 Continue" in await waiting[-1][0].read(99)
        async with client.post("/v1/tag", data=wav(noise(1))) as response:
            assert (response.status, response.headers["Retry-After"]) == (503, "10")
        for _, writer in waiting:
            writer.close()


@run
async def test_events_are_sent_and_kept():
    async with live_server(rules=EVERYTHING) as (client, _):
        async with client.get("/v1/events") as response:
            stream = await Stream.open(client, name="yard", want={"scores": "none"})
            await stream.sound(noise(2))
            await stream.send(type="finish")
            await stream.read_until("closed")
            told = stream.of("event")
            live = await read_events(response, len(told))
        assert [data for _, data in live] == [{"stream": "yard"} | event for event in told]
        async with client.get("/v1/events", headers={"Last-Event-ID": live[0][0]}) as response:
            assert await read_events(response, len(told) - 1) == live[1:]
        label = told[0]["label"]
        async with client.get("/v1/events", params={"after": "0", "class": label}) as response:
            [(_, first)] = await read_events(response, 1)
            assert first["label"] == label
        async with client.get("/v1/events", headers={"Last-Event-ID": "x"}) as response:
            assert response.status == 400


async def read_events(response, count):
    found, name = [], ""
    while len(found) < count:
        line = (await response.content.readline()).decode().strip()
        if line.startswith("id: "):
            name = line[4:]
        elif line.startswith("data: "):
            found.append((name, json.loads(line[6:])))
    return found


@run
async def test_loud_sounds_are_events():
    async with live_server(rules={"rules": {"default": {"watch": ["loud"]}}}) as (client, _):
        stream = await Stream.open(client, phase="spread")
        samples = np.zeros((5 * 16_000, 1), "<i2")
        samples[16_000:20_000] = 8000
        await stream.sound(samples)
        await stream.send(type="finish")
        await stream.read_until("closed")
        start, end = stream.of("event")
        assert (start["label"], start["start"]) == ("loud", pytest.approx(1.0, abs=0.11))
        assert end["end"] == pytest.approx(1.25, abs=0.11)


@run
async def test_streams_and_model():
    async with live_server() as (client, _):
        stream = await Stream.open(client, name="hall")
        await stream.sound(noise(3, 1.0))
        await stream.send(type="mark", id="")
        await stream.read_until("marked")
        async with client.get("/v1/streams") as response:
            [found] = (await response.json())["streams"]
        assert (found["name"], found["chunks"], found["source"]) == ("hall", 3, "websocket")
        assert found["top"][0][0] == int(np.argmax(stream.probs[2]))
        for name in ("hall", found["id"]):
            async with client.get(f"/v1/streams/{name}") as response:
                assert (await response.json())["id"] == found["id"]
        async with client.get("/v1/streams/attic") as response:
            assert response.status == 404
        async with client.get("/v1/model") as response:
            model = await response.json()
        assert model["labels"] == list(tiny_tagger().labels)
        assert model["watched"]["Dog"] == {"on": 0.5, "off": pytest.approx(0.2689, abs=1e-4)}
        async with client.patch("/v1/sources/attic", json={"enabled": True}) as response:
            assert response.status == 404
        async with client.patch("/v1/sources/attic", data=b"{") as response:
            assert response.status == 400


@run
async def test_figures_can_be_parsed_and_are_right():
    async with live_server(rules=EVERYTHING) as (client, _):
        stream = await Stream.open(client)
        await stream.sound(noise(4))
        await stream.finish()
        async with client.get("/metrics") as response:
            text = await response.text()
        values = {
            sample.name: sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }
        assert values["sat_chunks_total"] == values["sat_chunk_lag_seconds_count"] == 6
        assert values["sat_streams"] == 0 and values["sat_streams_capacity"] == 8
        assert stream.started["session"] not in text


@run
async def test_a_server_with_a_token():
    token = "0123456789abcdef"
    async with live_server(token=token) as (client, _):
        header = {"Authorization": f"Bearer {token}"}
        for path in ("/v1/streams", "/v1/events", "/metrics", "/v1/model"):
            async with client.get(path) as response:
                assert response.status == 401
            async with client.get(path, headers=header) as response:
                assert response.status == 200
        for path in ("/healthz", "/readyz"):
            async with client.get(path) as response:
                assert response.status == 200
        assert (await Stream.open(client)).started["code"] == 1008
        assert (await Stream.open(client, token=token)).started["type"] == "started"
        # A browser logs in once.
        async with client.post("/login", data={"token": token}, allow_redirects=False) as response:
            assert response.status == 303
            cookie = response.headers["Set-Cookie"]
        assert "HttpOnly" in cookie and "SameSite=Strict" in cookie and token not in cookie
        client.session.cookie_jar.update_cookies(response.cookies)
        async with client.get("/v1/model") as response:
            assert response.status == 200
        client.session.cookie_jar.clear()
        for _ in range(20):  # A program with an old token.
            async with client.post("/login", data={"token": "old"}) as response:
                assert response.status == 401
        async with client.get("/v1/model", headers=header) as response:
            assert response.status == 200
        for number in range(10):
            async with client.post("/login", data={"token": f"guess {number}"}) as response:
                assert response.status == 401
        async with client.post("/login", data={"token": token}) as response:
            assert response.status == 429


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "https://good.example"}, 200),
        ({"Host": "evil.example"}, 403),  # DNS that points here.
        ({"Host": "localhost:1"}, 200),
        ({"Host": "localhost:1", "Origin": "http://localhost:1"}, 200),
        ({"Host": "localhost:1", "Origin": "http://localhost:2"}, 403),
    ],
)
@run
async def test_pages_of_other_sites(headers, status):
    async with live_server(origins=["https://good.example"]) as (client, _):
        async with client.get("/v1/model", headers=headers) as response:
            assert response.status == status
        if status == 403:
            with pytest.raises(aiohttp.WSServerHandshakeError):
                await client.ws_connect("/v1/stream", headers=headers)


@run
async def test_paths_outside_of_the_page():
    async with live_server() as (client, _):
        for path in (
            "/web/../app.py",
            "/web/%2e%2e/app.py",
            "/web//etc/passwd",
            "/web/..%2fapp.py",
        ):
            async with client.get(path) as response:
                assert response.status in (403, 404)


def test_open_addresses_need_a_token(tmp_path):
    assert check_access(ServerTable()) == ("127.0.0.1", 8421, "")
    assert check_access(ServerTable(listen="[::1]:80")) == ("::1", 80, "")
    with pytest.raises(SatError, match="token_file"):
        check_access(ServerTable(listen="0.0.0.0:8421"))
    check_access(ServerTable(listen="0.0.0.0:8421", insecure=True))
    path = tmp_path / "token"
    path.write_text("0123456789abcdef\n")
    assert check_access(ServerTable(listen="0.0.0.0:1", token_file=str(path)))[2] == (
        "0123456789abcdef"
    )
    path.write_text("short")
    with pytest.raises(SatError, match="16"):
        check_access(ServerTable(token_file=str(path)))
    for wrong in ("8421", "host:", "host:99999"):
        with pytest.raises(SatError, match="listen"):
            parse_address(wrong)


def test_a_file_of_settings(tmp_path):
    path = tmp_path / "live.toml"
    path.write_text(
        'model = "SAT_T_2s"\n[server]\nmax_lag = 2\n[sources.yard]\nurl = "rtsp://u:${PW}@h/"\n'
        '[rules.default]\nwatch = ["Dog"]\n'
    )
    found = read_live_file(path)
    assert (found.model, found.server.max_lag, found.server.listen) == (
        "SAT_T_2s",
        2.0,
        "127.0.0.1:8421",
    )
    assert expand(found.sources["yard"].url, "url", {"PW": "x"}) == "rtsp://u:x@h/"
    with pytest.raises(SatError, match="PW"):
        expand(found.sources["yard"].url, "sources.yard.url", {})
    path.write_text("[server]\nmax_lags = 2\n")
    with pytest.raises(SatError, match="max_lags"):
        read_live_file(path)
    path.write_text('[sources."a/b"]\nurl = "mic:"\n')
    with pytest.raises(SatError, match="a/b"):
        read_live_file(path).source_settings()


@run
async def test_a_server_that_stops_takes_no_streams():
    async with live_server() as (client, _):
        client.app_of_live.is_ready = False
        for path in ("/readyz", "/v1/stream"):
            async with client.get(path) as response:
                assert response.status == 503
        async with client.get("/healthz") as response:
            assert response.status == 200
        await asyncio.sleep(0)


@run
async def test_a_number_of_an_earlier_run_misses_nothing():
    feed = EventFeed()
    for name in ("first", "second"):
        feed.publish("yard", {"label": name})
    with feed.subscribe(after=500) as subscription:
        assert [(await subscription.get()).number for _ in range(2)] == [1, 2]
    with feed.subscribe(after=1) as subscription:
        assert (await subscription.get()).number == 2
