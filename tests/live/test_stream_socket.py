"""Streams over WebSockets: the answers of a file, whatever clients do."""

import asyncio
import json
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import soundfile

from sat_jax.live.engine import EngineLimits
from sat_jax.weights.checkpoint import save_checkpoint
from tests.support.labelled_clips import tiny_checkpoint
from tests.support.live_server import CHUNK, Stream, live_server, noise, run, scores_alone
from tests.support.programs import run_command


@run
async def test_answers_are_those_of_a_file():
    async with live_server() as (client, _):
        formats = [(16_000, 1), (48_000, 2), (44_100, 1), (8_000, 1)]
        streams = [await Stream.open(client, rate=r, channels=c) for r, c in formats]
        sounds = [noise(k, rate=r, channels=c) for k, (r, c) in enumerate(formats)]
        assert streams[0].started["capacity"] == {"used": 1, "of": 8}
        await asyncio.gather(*(s.sound(x, 777) for s, x in zip(streams, sounds, strict=True)))
        for stream, samples, (rate, _) in zip(streams, sounds, formats, strict=True):
            found = await stream.finish()
            np.testing.assert_allclose(found, scores_alone(samples, rate), atol=1e-6)
            [closed] = stream.of("closed")
            assert (closed["position"], closed["chunks"]) == (len(samples), len(found))
            assert stream.code == 1000


@run
async def test_a_wrong_resume_leaves_the_client_that_is_there():
    async with live_server() as (client, hub):
        stream = await Stream.open(client)
        await stream.sound(noise(4))
        wrong = await Stream.open(client, resume=stream.started["resume"], rate=8000)
        assert wrong.started["code"] == 4000
        assert not hub.has_left
        np.testing.assert_allclose(await stream.finish(), scores_alone(noise(4)), atol=1e-6)


@run
async def test_floats_and_the_strongest_classes():
    async with live_server() as (client, _):
        want = {"scores": "top", "k": 2, "level": True, "events": False}
        stream = await Stream.open(client, format="f32le", want=want)
        samples = noise(1)
        await stream.sound(samples.astype("<f4") / 32768)
        await stream.send(type="finish")
        await stream.read_until("closed")
        expected = scores_alone(samples)
        for message, probs in zip(stream.of("scores"), expected, strict=True):
            best = np.argsort(-probs, kind="stable")[:2]
            assert [row[0] for row in message["top"]] == best.tolist()
            assert [row[2] for row in message["top"]] == pytest.approx(probs[best], abs=1e-4)
        first = samples[:5120].astype(float) / 32768
        level = 20 * np.log10(np.sqrt(np.square(first).mean()))
        assert stream.of("scores")[0]["level"] == pytest.approx(level, abs=0.1)
        assert not stream.of("event")


@run
async def test_a_mark_follows_what_was_sent_before():
    async with live_server() as (client, _):
        stream = await Stream.open(client)
        samples = noise(2, 1.7)
        await stream.sound(samples)
        await stream.send(type="mark", id="here")
        assert (await stream.read_until("marked"))["id"] == "here"
        assert len(stream.probs) == len(samples) // 5120
        await stream.send(type="mark", id="again")  # Nothing waits.
        await stream.read_until("marked")


@pytest.mark.parametrize("seed", range(4))
@run
async def test_a_client_that_comes_back_loses_nothing(seed):
    rng = np.random.default_rng(seed)
    rate = (16_000, 48_000)[seed % 2]
    samples = noise(seed, 4.0, rate=rate)
    async with live_server() as (client, hub):
        stream = await Stream.open(client, rate=rate)
        cut = int(rng.integers(len(samples)))
        await stream.sound(samples[:cut], 999)
        for _ in range(int(rng.integers(6))):
            await asyncio.wait_for(stream.read(), 5) if len(stream.probs) < cut // rate else None
        stream.socket._response.connection.transport.abort()  # As a lost network.
        while not hub.has_left:
            await asyncio.sleep(0.01)
        has = max(stream.probs, default=-1) + 1
        position = round(has * 0.32 * rate)
        back = await Stream.open(
            client, rate=rate, resume=stream.started["resume"], position=position
        )
        assert back.started["session"] == stream.started["session"]
        assert position <= back.started["position"] <= cut
        await back.sound(samples[back.started["position"] :])
        await back.finish()
    found = stream.probs | back.probs
    assert sorted(found) == list(range(len(found)))
    np.testing.assert_allclose(
        np.stack([found[k] for k in sorted(found)]), scores_alone(samples, rate), atol=1e-6
    )


@run
async def test_the_last_scores_outlive_the_connection():
    async with live_server() as (client, hub):
        stream = await Stream.open(client)
        samples = noise(4)
        await stream.sound(samples)
        await stream.send(type="finish")
        stream.socket._response.connection.transport.abort()
        while hub.sessions:
            await asyncio.sleep(0.01)
        back = await Stream.open(client, resume=stream.started["resume"])
        await back.read_until("closed")
        while await back.read() is not None:
            pass
        assert back.code == 1000
        found = np.stack([back.probs[k] for k in sorted(back.probs)])
        np.testing.assert_allclose(found, scores_alone(samples), atol=1e-6)
        assert hub.engine.used == 0


@run
async def test_the_newest_client_has_the_stream():
    async with live_server() as (client, _):
        first = await Stream.open(client)
        await first.sound(noise(3))
        second = await Stream.open(client, resume=first.started["resume"])
        while await first.read() is not None:
            pass
        assert first.code == 4003
        # What was under way to the first one is sent again.
        await second.sound(noise(3)[second.started["position"] :])
        await second.send(type="finish")
        await second.read_until("closed")
        assert sorted(second.probs) == list(range(7))


@run
async def test_a_stream_waits_only_for_a_while():
    async with live_server(resume_window=0.0) as (client, hub):
        stream = await Stream.open(client)
        await stream.sound(noise(0, 0.1))
        await stream.socket.close()
        while not hub.has_left:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.01)
        hub.tick()
        assert hub.engine.used == 0
        late = await Stream.open(client, resume=stream.started["resume"])
        assert late.started["code"] == 4004
        assert await late.read() is None


@pytest.mark.parametrize(
    ("messages", "code", "named"),
    [
        (["x"], 4000, "not understood"),
        (['{"type":"start","rat":1}'], 4000, "rat"),
        (['{"type":"start","rate":10}'], 4000, "rate=10"),
        (['{"type":"start","channels":0}'], 4000, "channels=0"),
        (['{"type":"start","version":2}'], 4000, "version=2"),
        (['{"type":"start","rules":"none"}'], 4000, "none"),
        (['{"type":"start","resume":"x"}'], 4004, "resume"),
        (['{"type":"finish"}'], 4000, "start"),
        ([b"\0\0"], 4000, "start"),
        (['{"type":"start"}', '{"type":"start"}'], 4000, "second"),
        (['{"type":"start"}', b"\0"], 1003, "1 bytes"),
        (['{"type":"start","format":"f32le"}', b"\xff\xff\xff\xff"], 1003, "NaN"),
        (['{"type":"start"}', bytes(70_000)], 1009, "65536"),
    ],
)
@run
async def test_what_a_client_must_not_send(messages, code, named):
    async with live_server() as (client, hub):
        other = await Stream.open(client)
        await other.sound(noise(5, 1.0))
        stream = Stream(await client.ws_connect("/v1/stream"))
        for message in messages:
            if isinstance(message, str):
                await stream.socket.send_str(message)
            else:
                await stream.socket.send_bytes(message)
        while await stream.read() is not None:
            pass
        assert stream.code == code
        if code != 1009:  # The library answers for itself.
            error = stream.of("error")[-1]
            assert error["code"] == code and error["fatal"] and named in error["message"]
        await other.sound(noise(6, 1.0))
        both = np.concatenate([noise(5, 1.0), noise(6, 1.0)])
        np.testing.assert_allclose(await other.finish(), scores_alone(both), atol=1e-6)
        assert hub.engine.used == 0


@run
async def test_an_unknown_message_is_told_and_the_stream_goes_on():
    async with live_server() as (client, _):
        stream = await Stream.open(client)
        await stream.send(type="sing")
        error = await stream.read_until("error")
        assert not error["fatal"] and "sing" in error["message"]
        await stream.send(type="keepalive")
        await stream.sound(noise(7))
        assert len(await stream.finish()) == 7


@run
async def test_silent_clients_are_disconnected(monkeypatch):
    monkeypatch.setattr("sat_jax.live.websocket.START_TIMEOUT", 0.05)
    async with live_server(idle_timeout=0.05) as (client, hub):
        silent = Stream(await client.ws_connect("/v1/stream"))
        while await silent.read() is not None:
            pass
        assert silent.code == 4001
        idle = await Stream.open(client)
        await idle.sound(noise(0, 0.1))
        while await idle.read() is not None:
            pass
        assert idle.code == 4002
        assert hub.has_left  # It may come back.


@run
async def test_abort_frees_the_stream():
    async with live_server() as (client, hub):
        stream = await Stream.open(client)
        await stream.sound(noise(8, 0.2))
        await stream.send(type="abort")
        while await stream.read() is not None:
            pass
        assert (stream.code, hub.engine.used, stream.probs) == (1000, 0, {})


@run
async def test_too_many_streams():
    async with live_server(limits=EngineLimits(max_streams=2)) as (client, _):
        streams = [await Stream.open(client) for _ in range(2)]
        assert (await Stream.open(client)).started["code"] == 1013
        # Its old connection may be dead without a word.
        streams[1] = await Stream.open(client, resume=streams[1].started["resume"])
        await streams[0].sound(noise(1))
        await streams[0].finish()
        await Stream.open(client)


@run
async def test_who_went_away_makes_room():
    async with live_server(limits=EngineLimits(max_streams=2)) as (client, hub):
        stays, leaves = [await Stream.open(client) for _ in range(2)]
        for stream in (stays, leaves):
            await stream.sound(noise(1, 0.1))
        await leaves.socket.close()
        while not hub.has_left:
            await asyncio.sleep(0.01)
        await Stream.open(client)
        assert (await Stream.open(client, resume=leaves.started["resume"])).started["code"] == 4004
        await stays.sound(noise(1))
        await stays.finish()


@run
async def test_spread_streams_are_ready_at_different_times():
    async with live_server() as (client, hub):
        streams = [await Stream.open(client, phase="spread") for _ in range(4)]
        begins = sorted(len(s.stream.waiting) for s in hub.sessions.values())
        assert min(np.diff([*begins, 5120])) > 5120 / 16
        samples = noise(9, 3.2)
        for stream in streams:
            await stream.sound(samples)
            found = await stream.finish()
            assert len(found) in (10, 11)
            [closed] = stream.of("closed")
            assert closed["position"] == len(samples)


@run
async def test_the_example_client(tmp_path):
    path = tmp_path / "street.wav"
    samples = noise(6, rate=44_100, channels=2)
    soundfile.write(path, samples, 44_100)
    client_file = Path(__file__).parents[2] / "examples" / "stream_client.py"
    async with live_server() as (client, _):
        command = (sys.executable, client_file, path, f"http://127.0.0.1:{client.port}")
        process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        told = [json.loads(line) for line in (await process.communicate())[0].splitlines()]
    expected = scores_alone(samples, 44_100)
    scores = [message for message in told if message["type"] == "scores"]
    assert [message["top"][0][0] for message in scores] == expected.argmax(1).tolist()
    assert (told[0]["type"], told[-1]["type"]) == ("started", "closed")


@run
async def test_events_are_those_of_sat_jax_tag(tmp_path):
    rules = '[rules.default]\nwatch = ["loud", "*"]\nmin_off = 0.3\non = ON\n'
    # The last chunk has 0.12 of 0.32 s.
    sound = np.concatenate([noise(0, 1.0), noise(1, 2.0) // 50, noise(2, 1.6)])
    scores = scores_alone(sound)
    # Half of the chunks reach it.
    rules = rules.replace("ON", f"{np.median(scores.max(1)):.4f}")
    labels = tiny_checkpoint().labels
    strongest = [labels[k] for k in np.argsort(-scores.max(0))[:6]]
    rules = rules.replace('"*"', ", ".join(map(json.dumps, strongest)))
    (tmp_path / "rules.toml").write_text(rules)
    save_checkpoint(tmp_path / "tiny", tiny_checkpoint())
    soundfile.write(tmp_path / "sound.wav", sound, 16_000, subtype="PCM_16")
    flags = ("-m", tmp_path / "tiny", "-c", CHUNK, "--rules", tmp_path / "rules.toml")
    output = tmp_path / "events.jsonl"
    arguments = (*flags, "--format", "events", "--output", output, tmp_path / "sound.wav")
    assert run_command("tag", *arguments) == 0
    expected = [json.loads(line) for line in output.read_text().splitlines()]
    async with live_server(rules=tomllib.loads(rules)) as (client, _):
        stream = await Stream.open(client, pace="asap")
        await stream.sound(sound)
        await stream.finish()
    names = ("kind", "label", "start", "end", "reason", "parents")
    found, expected = (
        [[message.get(name) for name in names] for message in messages]
        for messages in (stream.of("event"), expected)
    )
    assert found == expected
    assert {label for _, label, *_ in found} > {"loud"}
