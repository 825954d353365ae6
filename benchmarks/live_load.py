"""Loads a live server with many clients, and compares every score.

python -m benchmarks.live_load --model SAT_XS_2s --streams 100,200 --seconds 60
python -m benchmarks.live_load --streams 150 --slow 0.05 --reconnecting 0.05 --garbage 0.01

The server runs in a process of its own. Each client sends 100 ms of a recording every 100 ms, on an
absolute clock, and all scores are compared with those of the recording alone. "lag" is the time
from a chunk's last sample to its scores, as the client sees it. A run is void if the client itself
is late. Prints a Markdown table and JSON; --json also writes the JSON to a file.
"""

import argparse
import asyncio
import contextlib
import dataclasses
import functools
import gc
import json
import os
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measuring import machine, markdown_table, warn_if_busy

RATE = 16_000
FRAME = RATE // 10
SOUNDS = 24
"""Different recordings; more would take long to score alone."""

TOLERANCE = 1e-5
PORT = 8431
LATE = 0.1
"""Seconds of lateness of the client's own sending that make a run void (99th percentile)."""


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the benchmark."""
    options = parse_flags(argv)
    setting = machine(("jax", "aiohttp", "numpy"), threads=os.cpu_count())
    warn_if_busy(setting)
    sounds = [make_sound(number, options.seconds) for number in range(SOUNDS)]
    expected = score_alone(options.model, sounds)
    # The client's own pauses would count as the server's.
    gc.collect()
    gc.freeze()
    runs = []
    for streams in options.streams:
        # With room for those that misbehave.
        with running_server(options.model, round(1.3 * streams) + 8) as process:
            runs.append(asyncio.run(load(process.pid, streams, sounds, expected, options)))
            print(json.dumps(runs[-1]), flush=True)
    report = {"machine": setting, "model": options.model, "runs": runs}
    if options.json:
        Path(options.json).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    columns = list(runs[0])
    print(markdown_table(columns, [[str(run[column]) for column in columns] for run in runs]))
    print(json.dumps(report))


def parse_flags(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description="Loads a live server with many clients.")
    add = functools.partial(parser.add_argument, metavar="X")
    add("--model", default="SAT_XS_2s", help="name of the model")
    add("--streams", type=_numbers, default=[100], help="clients of each run, with commas")
    add("--seconds", type=float, default=60.0, help="of each client")
    add("--slow", type=float, default=0.0, help="share of further clients that do not read")
    add("--reconnecting", type=float, default=0.0, help="share that loses its connection at times")
    add("--garbage", type=float, default=0.0, help="share of further clients that send nonsense")
    parser.add_argument("--storm", action="store_true", help="all lose their connections once")
    add("--json", default=None, help="file for all numbers")
    return parser.parse_args(argv)


@dataclasses.dataclass
class Measured:
    """What the clients of a run saw."""

    lags: list[float] = dataclasses.field(default_factory=list)
    late: list[float] = dataclasses.field(default_factory=list)
    chunks: int = 0
    wrong: int = 0
    lost: int = 0
    worst: float = 0.0


def make_sound(number: int, seconds: float) -> np.ndarray:
    """Makes int16 samples that change all the time, each number others."""
    rng = np.random.default_rng(number)
    time_ = np.arange(round(seconds * RATE)) / RATE
    tone = np.sin(2 * np.pi * rng.uniform(100, 3000) * time_ * (1 + 0.1 * np.sin(time_)))
    noise = rng.standard_normal(len(time_)) * (0.5 + 0.5 * np.sin(rng.uniform(0.5, 3) * time_))
    return ((rng.uniform(0, 0.5) * tone + 0.1 * noise).clip(-1, 1) * 32_767).astype("<i2")


def score_alone(model: str, sounds: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Returns the scores of each recording alone, [k, y]."""
    os.environ["JAX_PLATFORMS"] = "cpu"
    from sat_jax.tagger import Tagger

    tagger = Tagger.load(model)
    return [
        np.stack([chunk.probs for chunk in tagger.tag(sound.astype(np.float32) / 32_768)])
        for sound in sounds
    ]


@contextlib.contextmanager
def running_server(model: str, streams: int) -> Any:
    """Runs a server in a process of its own, and waits until it is ready."""
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, "live.toml")
        config.write_text(
            f'model = "{model}"\n[server]\nmax_streams = {streams}\n', encoding="utf-8"
        )
        command = [sys.executable, "-m", "sat_jax", "serve", "--config", str(config)]
        process = subprocess.Popen([*command, "--listen", f"127.0.0.1:{PORT}"])
        try:
            wait_until_ready(process)
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=30)


def wait_until_ready(process: "subprocess.Popen[bytes]") -> None:
    """Waits for /readyz."""
    import urllib.error
    import urllib.request

    for _ in range(600):
        if process.poll() is not None:
            raise SystemExit("the server ended; see above")
        with contextlib.suppress(urllib.error.URLError, OSError):
            urllib.request.urlopen(f"http://127.0.0.1:{PORT}/readyz", timeout=1).close()
            return
        time.sleep(0.2)
    raise SystemExit("the server did not get ready in two minutes")


async def load(
    pid: int,
    streams: int,
    sounds: Sequence[np.ndarray],
    expected: Sequence[np.ndarray],
    options: argparse.Namespace,
) -> dict[str, Any]:
    """Runs all clients at once, and returns a row of the table."""
    import aiohttp

    measured, begin = Measured(), time.monotonic() + 2.0
    rng = np.random.default_rng(0)
    memory = [memory_of(pid)]
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(f"http://127.0.0.1:{PORT}", connector=connector) as http:
        tasks = []
        storm = begin + options.seconds / 2
        for number in range(streams):
            start = begin + number / streams * 2.0  # Ready times spread over two seconds.
            breaks = [storm] if options.storm else []
            if rng.random() < options.reconnecting:
                breaks = sorted(start + rng.uniform(2, options.seconds - 2, 3))
            sound = number % SOUNDS
            client = Client(http, sounds[sound], expected[sound], start, breaks, measured)
            tasks.append(client.run())
        others = [
            read_nothing(http, sounds[0], begin) for _ in range(round(options.slow * streams))
        ]
        count = max(1, round(options.garbage * streams)) if options.garbage else 0
        others += [send_garbage(http, number, begin + options.seconds) for number in range(count)]
        watching = asyncio.create_task(watch_memory(pid, memory))
        annoying = [asyncio.create_task(other) for other in others]
        await asyncio.gather(*tasks)
        for task in (watching, *annoying):
            task.cancel()
    lags, late = np.array(measured.lags), np.array(measured.late)
    percentiles = np.percentile(lags, [50, 95, 99])
    return {
        "streams": streams,
        "chunks": measured.chunks,
        "lost": measured.lost,
        "wrong": measured.wrong,
        "largest difference": float(f"{measured.worst:.2g}"),
        "lag p50": round(float(percentiles[0]), 3),
        "p95": round(float(percentiles[1]), 3),
        "p99": round(float(percentiles[2]), 3),
        "max": round(float(lags.max()), 3),
        "client late p99": round(float(np.percentile(late, 99)), 3),
        "void": bool(np.percentile(late, 99) > LATE),
        "MB first": round(memory[min(5, len(memory) - 1)] / 1e6),
        "MB last": round(memory[-1] / 1e6),
    }


class Client:
    """Sends a recording in real time, and compares what comes back."""

    def __init__(
        self,
        http: Any,
        samples: np.ndarray,
        expected: np.ndarray,
        begin: float,
        breaks: Sequence[float],
        measured: Measured,
    ) -> None:
        """Stores what it sends, and when it loses its connection."""
        self._http, self._samples, self._expected = http, samples, expected
        self._begin, self._breaks, self._measured = begin, list(breaks), measured
        self._seen: set[int] = set()
        self._resume = ""

    async def run(self) -> None:
        """Sends all, reconnecting after each break."""
        position = 0
        while True:
            end = self._breaks.pop(0) if self._breaks else None
            position = await self._connect(position, end)
            if position >= len(self._samples) and end is None:
                break
        self._measured.lost += len(self._expected) - len(self._seen)

    async def _connect(self, position: int, end: float | None) -> int:
        """Sends until the end, or a break; returns the samples sent."""
        async with self._http.ws_connect("/v1/stream", max_msg_size=0) as socket:
            has = max(self._seen, default=-1) + 1
            start = {"type": "start", "want": {"scores": "all", "events": True}}
            start |= {"resume": self._resume, "position": has * 2 * RATE}
            await socket.send_str(json.dumps(start))
            started = json.loads((await socket.receive()).data)
            if started["type"] != "started":
                raise SystemExit(f"refused: {started}")
            self._resume, position = started["resume"], started["position"]
            reading = asyncio.create_task(self._read(socket))
            for first in range(position, len(self._samples), FRAME):
                due = self._begin + (first + FRAME) / RATE
                if end is not None and due > end:
                    reading.cancel()
                    socket._response.connection.transport.abort()
                    return first
                await asyncio.sleep(due - time.monotonic())
                self._measured.late.append(time.monotonic() - due)
                await socket.send_bytes(self._samples[first : first + FRAME].tobytes())
            await socket.send_str('{"type": "finish"}')
            await reading
            return len(self._samples)

    async def _read(self, socket: Any) -> None:
        import aiohttp

        async for message in socket:
            if message.type is not aiohttp.WSMsgType.BINARY:
                continue
            now = time.monotonic()
            chunk, count, start = struct.unpack_from("<IId", message.data)
            if chunk in self._seen:  # It was sent again after a break.
                continue
            self._seen.add(chunk)
            probs = np.frombuffer(message.data, "<f4", count, 16)
            difference = float(np.abs(probs - self._expected[chunk]).max())
            self._measured.worst = max(self._measured.worst, difference)
            self._measured.wrong += difference > TOLERANCE
            self._measured.chunks += 1
            if chunk < len(self._expected) - 1:
                self._measured.lags.append(now - (self._begin + start + 2.0))


async def read_nothing(http: Any, samples: np.ndarray, begin: float) -> None:
    """A client that sends and does not read."""
    async with http.ws_connect("/v1/stream", max_msg_size=0) as socket:
        await socket.send_str('{"type": "start", "want": {"scores": "all"}}')
        for first in range(0, len(samples), FRAME):
            await asyncio.sleep(begin + first / RATE - time.monotonic())
            await socket.send_bytes(samples[first : first + FRAME].tobytes())


async def send_garbage(http: Any, seed: int, end: float) -> None:
    """Connects again and again, and sends nonsense."""
    import aiohttp

    rng = np.random.default_rng(seed)
    while time.monotonic() < end:
        with contextlib.suppress(aiohttp.ClientError, ConnectionError, RuntimeError):
            async with http.ws_connect("/v1/stream") as socket:
                for _ in range(rng.integers(1, 6)):
                    data = rng.bytes(int(rng.integers(0, 3000)))
                    kind = rng.integers(4)
                    if kind == 0:
                        await socket.send_bytes(data)
                    elif kind == 1:
                        await socket.send_str(data.decode("latin-1"))
                    elif kind == 2:
                        await socket.send_str('{"type": "start", "format": "f32le"}')
                    else:
                        await socket.send_str('{"type": "finish"}')
        await asyncio.sleep(float(rng.uniform(0.05, 0.5)))


async def watch_memory(pid: int, memory: list[int]) -> None:
    """Notes a process's memory each second."""
    while True:
        await asyncio.sleep(1.0)
        memory.append(memory_of(pid))


def memory_of(pid: int) -> int:
    """Returns the resident bytes of a process."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    [line] = [line for line in status.splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1]) * 1024


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


if __name__ == "__main__":
    main()
