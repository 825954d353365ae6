"""Sends a recording to sat-jax serve, and prints what it answers.

python examples/stream_client.py street.wav [http://localhost:8421]

Needs aiohttp and soundfile, not sat_jax.
"""

import asyncio
import sys

import aiohttp
import soundfile


async def main(path, server="http://localhost:8421"):
    """Sends the file as fast as the server takes it."""
    samples, rate = soundfile.read(path, dtype="int16", always_2d=True)
    start = {"type": "start", "rate": rate, "channels": samples.shape[1], "pace": "asap"}
    async with aiohttp.ClientSession() as http, http.ws_connect(f"{server}/v1/stream") as socket:
        await socket.send_json(start)

        async def send():
            for first in range(0, len(samples), 4000):
                await socket.send_bytes(samples[first : first + 4000].tobytes())
            await socket.send_json({"type": "finish"})

        sending = asyncio.create_task(send())
        async for message in socket:
            print(message.data)
        await sending


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
