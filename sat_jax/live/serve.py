"""Runs a server: starts all parts, reloads settings, and stops without losing streams."""

import asyncio
import contextlib
import gc
import ipaddress
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from aiohttp import web

from sat_jax.errors import SatError
from sat_jax.live.app import App
from sat_jax.live.config import LiveFile, ServerTable, parse_address
from sat_jax.live.engine import EngineLimits
from sat_jax.live.hub import Hub
from sat_jax.live.parking import park, take_up
from sat_jax.live.security import Guard, is_loopback, read_token
from sat_jax.live.sinks.json_lines import JsonLines
from sat_jax.live.sinks.mqtt import MqttSink
from sat_jax.live.sinks.sink import QueuedSink, Report
from sat_jax.live.sinks.webhook import Webhook
from sat_jax.live.source_watch import SourceWatch, check_sources
from sat_jax.runtime.files import cache_dir, check_writable_file
from sat_jax.stream_runner import StreamRunner

_AT_START = ("model", "chunk", "server", "mqtt", "webhook", "events_file")
"""Settings that are read at the start only."""


class Access(NamedTuple):
    """Where the server listens, and what clients need."""

    host: str
    port: int
    token: str


def check_settings(settings: LiveFile) -> Access:
    """Checks all settings that need no model, since loading one takes long.

    Raises:
      SatError: a value is wrong, a file can't be read or written, the address is taken, or
        everyone could use the server.
    """
    access = check_access(settings.server)
    check_sources(settings.source_settings())
    settings.mqtt_settings()
    settings.webhook_settings()
    if settings.events_file:
        check_writable_file(Path(settings.events_file).absolute())
    with _explain_taken(access):
        found = socket.getaddrinfo(access.host, access.port, type=socket.SOCK_STREAM)
        family, *_, address = found[0]
        socket.create_server(address[:2], family=family).close()
    return access


def check_access(server: ServerTable) -> Access:
    """Checks who may use the server.

    Raises:
      SatError: an address is wrong, the token can't be read, or everyone could use the server.
    """
    host, port = parse_address(server.listen)
    for origin in server.allowed_origins:
        scheme, _, rest = origin.partition("://")
        if scheme not in ("http", "https") or not rest or "/" in rest:
            raise SatError(f"allowed_origins: {origin}: use https://HOST, without a path")
    for proxy in server.trusted_proxies:
        try:
            ipaddress.ip_address(proxy)
        except ValueError as error:
            raise SatError(f"trusted_proxies: {proxy}: use the proxy's IP address") from error
    token = read_token(server.token_file) if server.token_file else ""
    if not token and not server.insecure and not is_loopback(host):
        raise SatError(
            f"listen={server.listen}: everyone who reaches this address could listen in: give a "
            "token_file, or set insecure = true"
        )
    return Access(host, port, token)


@contextlib.contextmanager
def _explain_taken(access: Access) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        number = error.errno or 0
        reason = os.strerror(number) if number > 0 else error.strerror or str(error)
        raise SatError(
            f"cannot listen on {access.host}:{access.port}: {reason}: choose another --listen"
        ) from error


def make_sinks(
    settings: LiveFile, hub: Hub, sources: SourceWatch, report: Report
) -> list[QueuedSink]:
    """Returns the sinks of the settings.

    Args:
      settings: of the server.
      hub: has the streams.
      sources: cameras and microphones.
      report: receives lines for the user.

    Raises:
      SatError: a setting is wrong, or the file can't be written.
    """
    sinks: list[QueuedSink] = []
    if settings.events_file:
        sinks.append(JsonLines(settings.events_file, report))
    if (webhook := settings.webhook_settings()) is not None:
        sinks.append(Webhook(webhook, report))
    if (mqtt := settings.mqtt_settings()) is not None:
        broker, node = mqtt
        sinks.append(MqttSink(broker, node, hub, sources, report))
    return sinks


async def run_sinks(sinks: Sequence[QueuedSink], report: Report) -> None:
    """Runs sinks until it is cancelled; one that fails does not end the others.

    Args:
      sinks: from `make_sinks`.
      report: is told of failures.
    """

    async def run(sink: QueuedSink) -> None:
        try:
            await sink.run()
        except Exception as error:
            report(f"{sink.name} has failed: {error!r}: please report this")

    # A group waits until all have sent what is left; `gather` would not.
    async with asyncio.TaskGroup() as tasks:
        for sink in sinks:
            tasks.create_task(run(sink))


class Server:
    """A server and its parts."""

    def __init__(
        self,
        tagger: StreamRunner,
        settings: LiveFile,
        *,
        thresholds: np.ndarray | None = None,
        read_again: Callable[[], LiveFile] | None = None,
        report: Report,
    ) -> None:
        """Stores what the server needs.

        Args:
          tagger: the model.
          settings: all others.
          thresholds: float [y], the model's own.
          read_again: reads the settings again on SIGHUP; None if they have no file.
          report: receives lines for the user.
        """
        self._tagger, self._settings, self._thresholds = tagger, settings, thresholds
        self._read_again, self._report = read_again, report
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Serves until a signal stops it.

        Raises:
          SatError: settings are wrong, or the port is taken.
        """
        server = self._settings.server
        access = check_access(server)
        limits = EngineLimits(max_streams=server.max_streams, max_lag=server.max_lag)
        self._hub = Hub(
            self._tagger,
            self._settings,
            thresholds=self._thresholds,
            limits=limits,
            resume_window=server.resume_window,
        )
        guard = Guard(
            token=access.token,
            allowed_origins=server.allowed_origins,
            trusted_proxies=server.trusted_proxies,
        )
        self._sources = SourceWatch(self._hub, {})
        sinks = make_sinks(self._settings, self._hub, self._sources, self._report)
        self._hub.sinks += sinks
        app = App(
            self._hub,
            guard,
            sources=self._sources,
            idle_timeout=server.idle_timeout,
            max_upload=server.max_upload,
        )
        runner = web.AppRunner(
            app.make(), access_log=None, shutdown_timeout=5.0, handler_cancellation=True
        )
        await runner.setup()
        # JAX has some 300 000 objects. To look at them all would stop every stream for 0.2 s.
        gc.collect()
        gc.freeze()
        parked = cache_dir() / "live" / f"streams-{access.port}.pickle"
        try:
            with _explain_taken(access):
                await web.TCPSite(runner, access.host, access.port).start()
            self._take_up(parked)
            self._sources.set(self._settings.source_settings())
            self._handle_signals()
            self._tell_start(access.host, runner.addresses[0][1])  # Port 0 is any free one.
            ticking = asyncio.gather(self._hub.run(), self._sources.run(self._report))
            sending = asyncio.create_task(run_sinks(sinks, self._report))
            await self._stopping.wait()
            ticking.cancel()
            app.is_ready = False
            self._sources.stop()
            self._hub.engine.pause()
            await asyncio.sleep(0)  # What was scored is told.
            self._park(parked)
            self._end_sources()
            sending.cancel()
            await asyncio.wait([sending])
        finally:
            with contextlib.suppress(TimeoutError):
                await runner.cleanup()
            self._hub.engine.stop()

    def _tell_start(self, host: str, port: int) -> None:
        engine = self._hub.engine
        shown = f"[{host}]" if ":" in host else host
        seconds = engine.hop / engine.rate
        self._report(
            f"listening on http://{shown}:{port}: {self._tagger.source}, chunks of {seconds:g} s, "
            f"{engine.capacity} streams at most (a step takes "
            f"{1e3 * engine.seconds_a_stream:.1f} ms a stream)"
        )
        if self._settings.server.max_streams > engine.fitting:
            self._report(
                f"max_streams={engine.capacity}: this machine steps {engine.fitting} in time"
            )

    def _handle_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._stop)
        if hasattr(signal, "SIGHUP"):
            if self._read_again is not None:
                loop.add_signal_handler(signal.SIGHUP, self._reload)
            elif signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # As nohup sets it.
                loop.add_signal_handler(signal.SIGHUP, self._stop)

    def _stop(self) -> None:
        if self._stopping.is_set():
            # A second signal does not wait. The requests that it cuts off are no faults to log.
            logging.disable()
            sys.exit(130)
        self._stopping.set()

    def _reload(self) -> None:
        """Reads rules and sources again; wrong ones leave all as it was."""
        assert self._read_again is not None
        rules = self._hub.rules
        try:
            settings = self._read_again()
            sources = settings.source_settings()
            self._hub.set_rules(settings)
            self._sources.set(sources)
        except SatError as error:
            self._hub.set_rules(rules)
            self._report(f"the old settings stay: {error}")
            return
        self._hub.watch_anew()
        self._report("read rules and sources again")
        old = self._settings
        if changed := [key for key in _AT_START if getattr(old, key) != getattr(settings, key)]:
            self._report(f"restart the server to change {', '.join(changed)}")

    def _end_sources(self) -> None:
        """Ends what is not parked, so that sinks hear of the end of its events."""
        for session in list(self._hub.sessions.values()):
            if session.is_of_source:
                self._hub.close(session)

    def _take_up(self, path: Path) -> None:
        try:
            if count := take_up(self._hub, path):
                self._hub.watch_anew()
                self._report(f"{count} streams wait for their clients")
        except SatError as error:
            self._report(str(error))

    def _park(self, path: Path) -> None:
        try:
            park(self._hub, path)
        except SatError as error:
            self._report(str(error))
