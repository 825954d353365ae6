"""Streams outlive a restart of the server."""

import asyncio

import numpy as np
import pytest

from sat_jax.errors import SatError
from sat_jax.live.parking import park, take_up
from tests.support.live_server import Stream, live_server, noise, run, scores_alone

RULES = {"rules": {"default": {"on": 0.05, "off": 0.04, "min_off": 30.0}}}


async def stop(hub, path):
    hub.engine.pause()
    await asyncio.sleep(0.01)
    return park(hub, path)


@pytest.mark.parametrize("seed", range(3))
@run
async def test_streams_go_on_after_a_restart(tmp_path, seed):
    path = tmp_path / "live" / "streams.pickle"
    samples, cut = noise(seed, 3.0), int(np.random.default_rng(seed).integers(16_000, 40_000))
    async with live_server(rules=RULES) as (client, hub):
        stream = await Stream.open(client)
        await stream.sound(samples[:cut])
        await stream.send(type="mark", id="")
        await stream.read_until("marked")
        assert await stop(hub, path) == 1
    assert path.stat().st_mode & 0o077 == 0  # It has what clients need to come back.
    # No sound is stored.
    assert samples[cut - 50 : cut].tobytes() not in path.read_bytes()
    assert (samples[cut - 50 : cut] / np.float32(32768)).tobytes() not in path.read_bytes()
    started = [event["id"] for event in stream.of("event") if event["kind"] == "start"]
    async with live_server(rules=RULES) as (client, hub):
        assert take_up(hub, path) == 1
        assert not path.exists()
        back = await Stream.open(
            client, resume=stream.started["resume"], position=len(stream.probs) * 5120
        )
        assert back.started["position"] == cut // 5120 * 5120
        await back.sound(samples[back.started["position"] :])
        await back.finish()
    found = stream.probs | back.probs
    np.testing.assert_allclose(
        np.stack([found[k] for k in sorted(found)]), scores_alone(samples), atol=1e-6
    )
    # The events that went on have the same names.
    ended = [event["id"] for event in back.of("event") if event["kind"] == "end"]
    assert set(started) <= set(ended)


@run
async def test_old_and_damaged_files(tmp_path):
    path = tmp_path / "live" / "streams.pickle"
    async with live_server(resume_window=0.0) as (client, hub):
        stream = await Stream.open(client)
        await stream.sound(noise(0))
        await stop(hub, path)
    async with live_server(resume_window=0.0) as (_, hub):
        assert take_up(hub, path) == 0  # Too old.
        assert take_up(hub, path) == 0  # Removed.
        path.write_bytes(b"nonsense")
        with pytest.raises(SatError, match=r"streams\.pickle"):
            take_up(hub, path)
        assert not path.exists()
        assert hub.engine.used == 0
