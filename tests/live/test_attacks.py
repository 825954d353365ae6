"""Clients that mean harm: the scores of others stay, nothing hangs, and no stream is left over."""

import asyncio
import json

import aiohttp
import numpy as np
import pytest

from sat_jax.live.engine import EngineLimits
from sat_jax.live.stream import Scored
from tests.support.live_server import Stream, live_server, noise, run, scores_alone

SEEDS = [pytest.param(40, id="some"), pytest.param(1000, id="many", marks=pytest.mark.slow)]


def mutate(rng, text):
    """Changes a message at random: cut, doubled, other bytes, other numbers."""
    kind, place = rng.integers(5), int(rng.integers(len(text)))
    if kind == 0:
        return text[:place]
    if kind == 1:
        return text[:place] + chr(rng.integers(1, 0x2000)) + text[place + 1 :]
    if kind == 2:
        return text.replace("16000", str(rng.choice([0, -1, 1e99, "NaN", '"x"', "[]"])))
    if kind == 3:
        return "[" * int(rng.integers(1, 3000)) + text
    return text + text[place:]


async def misbehave(client, rng):
    """Sends up to eight messages, some right, most wrong, and goes away in one of three ways."""
    start = json.dumps({"type": "start", "rate": 16000, "channels": 1, "want": {"k": 5}})
    with_errors = (aiohttp.ClientError, ConnectionError, RuntimeError)
    try:
        socket = await client.ws_connect("/v1/stream")
        if rng.random() < 0.6:
            await socket.send_str(start)
        for _ in range(rng.integers(8)):
            choice = rng.integers(5)
            if choice == 0:
                await socket.send_str(mutate(rng, start))
            elif choice == 1:
                await socket.send_bytes(rng.bytes(int(rng.integers(0, 9000))))
            elif choice == 2:
                await socket.send_bytes(bytes(2 * int(rng.integers(0, 9000))))
            elif choice == 3:
                await socket.ping(rng.bytes(100))
            else:
                await socket.send_str('{"type": "mark", "id": "x"}')
        if rng.random() < 0.5:
            socket._response.connection.transport.abort()
        else:
            await socket.close()
    except with_errors:
        pass


@pytest.mark.parametrize("count", SEEDS)
@run
async def test_malformed_clients(count):
    limits = EngineLimits(max_streams=24, max_lag=1e6)
    async with live_server(limits=limits, resume_window=0.0) as (client, hub):
        good = await Stream.open(client)
        samples = noise(1, 3.0)
        parts = np.array_split(samples, 10)
        seeds = np.array_split(np.arange(count), 10)
        for part, own in zip(parts, seeds, strict=True):
            await good.sound(part)
            for few in np.array_split(own, max(1, len(own) // 10)):
                bad = (misbehave(client, np.random.default_rng(int(seed))) for seed in few)
                await asyncio.gather(*bad)
        np.testing.assert_allclose(await good.finish(), scores_alone(samples), atol=1e-6)
        for _ in range(200):
            await asyncio.sleep(0.01)
            hub.tick()
            if hub.engine.used == 0:
                break
        assert hub.engine.used == 0 and not hub.sessions and hub.engine.is_alive


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET /v1/model HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 100_000 + b"\r\n\r\n",
        b"GET /v1/model HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"POST /v1/tag HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999999\r\n\r\n",
        b"\x16\x03\x01\x02\x00" + bytes(500),
        b"GET " + b"/" * 20_000 + b" HTTP/1.1\r\n\r\n",
    ],
    ids=["long header", "negative length", "huge length", "TLS", "long path"],
)
@run
async def test_requests_that_lie(request_bytes):
    async with live_server() as (client, _):
        reader, writer = await asyncio.open_connection(client.host, client.port)
        writer.write(request_bytes)
        answer = await reader.read(200)
        assert answer.startswith(b"HTTP/1.") and b" 200 " not in answer.partition(b"\r\n")[0]
        writer.close()
        async with client.get("/healthz") as response:
            assert response.status == 200


@run
async def test_connections_that_say_nothing():
    async with live_server() as (client, _):
        silent = [await asyncio.open_connection(client.host, client.port) for _ in range(50)]
        for _, writer in silent[:25]:
            writer.write(b"GET /v1/model HTTP/1.1\r\n")  # And never the rest.
        stream = await Stream.open(client)
        await stream.sound(noise(2))
        assert len(await stream.finish()) == 7
        for _, writer in silent:
            writer.close()


@run
async def test_a_client_that_does_not_read(monkeypatch):
    monkeypatch.setattr("sat_jax.live.websocket._QUEUE", 20)
    async with live_server() as (client, hub):
        good = await Stream.open(client)
        _, writer = await asyncio.open_connection(client.host, client.port, limit=1)
        writer.write(
            b"GET /v1/stream HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
            b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        want = {"scores": "top", "k": 1000}
        writer.write(frame(1, json.dumps({"type": "start", "want": want}).encode()))
        samples = noise(3, 3.0)
        for part in np.array_split(samples, 30):
            await good.sound(part)
            for _ in range(20):  # Much faster than real time.
                writer.write(frame(2, bytes(32_000)))
            await asyncio.sleep(0.01)
        np.testing.assert_allclose(await good.finish(), scores_alone(samples), atol=1e-6)
        assert hub.engine.is_alive
        writer.close()


def frame(kind, data):
    """A frame of a WebSocket client, with a mask of zeros."""
    length = bytes([0x80 | len(data)]) if len(data) < 126 else b"\xfe" + len(data).to_bytes(2)
    return bytes([0x80 | kind]) + length + bytes(4) + data


@run
async def test_a_stream_that_fails_takes_no_other_along():
    async with live_server() as (_, hub):
        failures = []
        asyncio.get_running_loop().set_exception_handler(lambda _, about: failures.append(about))
        bad, good = [hub.open(name=name, source="test", rate=16_000) for name in ("bad", "good")]

        def fail(_):
            raise RuntimeError("on purpose")

        bad.listeners.insert(0, fail)
        scored = Scored(first=0, end=5120, probs=np.zeros(6), lag=0.0, samples=np.zeros(5120))
        hub._hear_all([(bad.stream, scored), (good.stream, scored)])
        assert good.chunks == 1
        assert [str(about["exception"]) for about in failures] == ["on purpose"]


@pytest.mark.parametrize("time", [1e12, 1e300, -1.0])
@run
async def test_times_without_a_date(time):
    async with live_server() as (client, hub):
        stream = await Stream.open(client, time=time)
        assert "time" in stream.started["message"]
        assert await stream.read() is None and stream.code == 4000
        assert not hub.sessions


@pytest.mark.parametrize("value", [1e11, 3e38, float("nan")])
@run
async def test_samples_that_a_model_cannot_take(value):
    async with live_server() as (client, _):
        stream = await Stream.open(client, format="f32le", channels=2)
        await stream.sound(np.full((4000, 2), value, "<f4"))
        await stream.read_until("error")
        assert await stream.read() is None and stream.code == 1003
        stream = await Stream.open(client, format="f32le", want={"scores": "top"})
        await stream.sound(np.full(8000, 1e10, "<f4"))
        await stream.send(type="mark", id="")
        await stream.read_until("marked")
        [scores] = stream.of("scores")
        assert scores["level"] == pytest.approx(200.0) and len(scores["top"]) == 5
        await stream.socket.close()


FORM = b"Content-Type: application/x-www-form-urlencoded\r\n"
DIGITS = b"9" * 5000


@pytest.mark.parametrize(
    ("line", "headers", "body", "token", "status"),
    [
        (b"GET /", b"Host: [\r\n", b"", False, 403),
        (b"GET /", b"Origin: http://[\r\n", b"", False, 403),
        (b"GET /", b"Origin: \xff\r\n", b"", False, 403),
        (b"GET /v1/model", b"Authorization: Bearer \xff\r\n", b"", True, 401),
        (b"GET /v1/model", b"Cookie: sat_jax_session=\xff\r\n", b"", True, 401),
        (b"GET /v1/events", b"Last-Event-ID: \xff\r\n", b"", False, 400),
        (b"GET /v1/events?after=" + DIGITS, b"", b"", False, 400),
        (b"POST /v1/tag?k=" + DIGITS, b"", b"x", False, 400),
        (b"POST /v1/tag", b"Content-Type: multipart/form-data\r\n", b"x", False, 400),
        (b"POST /v1/tag", b"Content-Type: multipart/form-data; boundary=x\r\n", b"x", False, 400),
        (
            b"POST /v1/tag",
            b"Content-Type: multipart/form-data; boundary=x\r\n",
            b"--x\r\nnone\r\n\r\nx",
            False,
            400,
        ),
        (b"POST /login", FORM, b"token=\xff", True, 401),
        (b"POST /login", FORM.replace(b"d\r", b"d; charset=none\r"), b"token=x", True, 401),
        (b"POST /login", FORM, b"token=" + bytes(9000), True, 413),
        (
            b"PATCH /v1/sources/x",
            b"Content-Type: application/json; charset=none\r\n",
            b"{}",
            False,
            400,
        ),
    ],
)
@run
async def test_requests_of_odd_bytes(line, headers, body, token, status):
    async with live_server(token="0123456789abcdef" if token else "") as (client, _):
        reader, writer = await asyncio.open_connection(client.host, client.port)
        host = b"" if b"Host" in headers else b"Host: localhost\r\n"
        length = f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode()
        writer.write(line + b" HTTP/1.1\r\n" + host + headers + length + body)
        assert (await reader.read()).startswith(f"HTTP/1.1 {status} ".encode())
        writer.close()


@run
async def test_the_longest_message_and_a_longer_one():
    async with live_server() as (client, hub):
        stream = await Stream.open(client)
        await stream.socket.send_bytes(bytes(1 << 16))
        await stream.send(type="mark", id="")
        await stream.read_until("marked")
        [session] = hub.sessions.values()
        assert session.received == 1 << 15
        await stream.socket.send_bytes(bytes((1 << 16) + 2))
        while await stream.read() is not None:
            pass
        assert stream.code == 1009


@run
async def test_a_reason_is_whole_characters():
    async with live_server() as (client, _):
        for start in range(2):  # In one of them, byte 120 is amid a character.
            stream = await Stream.open(client, rules="x" * start + "\u00e9" * 200)
            assert stream.started["code"] == 4000
            assert await stream.read() is None and stream.code == 4000


@run
async def test_many_wrong_tokens_of_streams():
    token = "0123456789abcdef"
    async with live_server(token=token) as (client, hub):
        for given in [f"wrong {k}" for k in range(12)] + [token]:
            stream = await Stream.open(client, token=given)
            assert stream.started["code"] == 1008
            assert await stream.read() is None and stream.code == 1008
        assert "wait" in stream.started["message"] and not hub.sessions
