"""Sources at an MQTT broker, where Home Assistant finds them by itself."""

import asyncio
import contextlib
import dataclasses
import re
import ssl
import time
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

import aiomqtt

from sat_jax.errors import SatError, one_line
from sat_jax.events import EventMessage
from sat_jax.live.hub import Hub
from sat_jax.live.outputs import Output, Scores, StateChange
from sat_jax.live.session import Session
from sat_jax.live.sinks.mqtt_payloads import (
    OFF,
    OFFLINE,
    ON,
    ONLINE,
    Node,
    attributes_payload,
    discovery,
    event_payload,
    retained_topics,
    slugs,
    to_json,
)
from sat_jax.live.sinks.sink import NewestQueue, Report, pauses
from sat_jax.live.source_watch import SourceWatch
from sat_jax.live.stream import decibels

_EVENTS = 1000
_TIMEOUT = 5.0
"""Seconds in which a broker must answer."""

_LATE = 60.0
"""Seconds after which an event is no news for home automation."""

_LEVEL_EVERY = 5.0
"""Seconds between levels of a source."""

_LASTING = 60.0
"""After a connection of so many seconds, the next attempt comes soon."""

_LAST_SECONDS = 3.0
"""What is left at the end has so many seconds."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Broker:
    """Where an MQTT broker is.

    Attributes:
      host: name or address.
      port: its port.
      is_encrypted: whether it speaks TLS.
      user: "" for nobody.
      password: never shown.
    """

    host: str
    port: int
    is_encrypted: bool
    user: str = ""
    password: str = dataclasses.field(default="", repr=False)

    @property
    def shown(self) -> str:
        """Its address without its secrets."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"mqtt{'s' if self.is_encrypted else ''}://{host}:{self.port}"


def find_broker(url: str, password_file: str = "") -> Broker:
    """Parses the address of a broker, and reads its password.

    Args:
      url: ``mqtt://USER:PASSWORD@HOST:PORT``, or ``mqtts://…``; all but the host may be missing.
      password_file: a file with the password; "" if the address has it.

    Raises:
      SatError: the address is wrong, or the file can't be read.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    # The address may hold a password, so that it is not shown.
    if parts.scheme not in ("mqtt", "mqtts") or not parts.hostname or parts.path not in ("", "/"):
        raise SatError("mqtt.url: use mqtt://USER@HOST:PORT or mqtts://USER@HOST:PORT")
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    if password_file:
        try:
            password = Path(password_file).read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not text"
            raise SatError(f"mqtt.password_file: cannot read {password_file}: {reason}") from error
    if password and not user:
        raise SatError("mqtt.url: a password needs a user: use mqtt://USER@HOST:PORT")
    is_encrypted = parts.scheme == "mqtts"
    return Broker(
        host=parts.hostname,
        port=port or (8883 if is_encrypted else 1883),
        is_encrypted=is_encrypted,
        user=user,
        password=password,
    )


def check_node(node: Node) -> None:
    """Checks the words of a node's topics.

    Raises:
      SatError: one is not fit for topics and ids.
    """
    if not re.fullmatch(r"[A-Za-z0-9-]{1,64}", node.name):
        raise SatError(f"mqtt.node={one_line(node.name)}: use letters, digits and -")
    for key, text in (("base", node.base), ("discovery", node.prefix or "x")):
        if not re.fullmatch(r"[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*", text):
            raise SatError(f"mqtt.{key}={one_line(text)}: use letters, digits, -, _ and /")


class _Event(NamedTuple):
    """An event to be sent, and when it was told."""

    topic: str
    payload: str
    told: float


class MqttSink:
    """Tells a broker the state of all sources, and switches them for it."""

    name = "mqtt"

    def __init__(
        self, broker: Broker, node: Node, hub: Hub, sources: SourceWatch, report: Report
    ) -> None:
        """Stores the parts.

        Args:
          broker: where it is.
          node: the server's name there.
          hub: has the streams.
          sources: cameras and microphones.
          report: is told when the broker can't be reached, and when it can be.

        Raises:
          SatError: the node's names are not fit for topics.
        """
        check_node(node)
        self._broker, self._node, self._hub, self._sources = broker, node, hub, sources
        self._report = report
        self._layout: dict[str, tuple[str, ...]] = {}
        self._slugs: dict[str, dict[str, str]] = {}
        self._removed: dict[str, set[str]] = {}
        # What the broker shall keep, and the topics of which it may not know the newest message.
        self._retained: dict[str, str] = {}
        self._unsent: dict[str, None] = {}
        self._events = NewestQueue[_Event](_EVENTS)
        self._levels: dict[str, str] = {}
        self._level_times: dict[str, float] = {}
        self._has_work = asyncio.Event()
        self._late = 0
        self._failure = ""

    @property
    def waiting(self) -> int:
        """Messages to be sent."""
        return len(self._unsent) + len(self._events)

    @property
    def dropped(self) -> int:
        """Events that were thrown away, or came too late."""
        return self._events.dropped + self._late

    # ---- What is told.

    def tell(self, session: Session, output: Output) -> None:
        """Takes an output; those of sources are sent."""
        name = session.name
        if not session.is_of_source or name not in self._layout:
            return
        if isinstance(output, StateChange):
            if slug := self._slugs[name].get(output.name):
                self._set(self._node.source(name).state(slug), ON if output.is_on else OFF)
        elif isinstance(output, EventMessage):
            self._tell_event(name, output)
        elif isinstance(output, Scores):
            self._tell_level(name, output)

    def _tell_event(self, name: str, message: EventMessage) -> None:
        topics = self._node.source(name)
        if slug := self._slugs[name].get(message.label):
            self._set(topics.attributes(slug), attributes_payload(message))
            if message.kind == "start" and not message.muted:
                payload = event_payload(name, message)
                self._events.put(_Event(topics.event, payload, time.monotonic()))
                self._has_work.set()

    def _tell_level(self, name: str, scores: Scores) -> None:
        now = time.monotonic()
        if now - self._level_times.get(name, -_LEVEL_EVERY) >= _LEVEL_EVERY:
            self._level_times[name] = now
            self._levels[self._node.source(name).level] = f"{decibels(scores.rms):.1f}"
            self._has_work.set()

    def update(self) -> None:
        """Takes up what has changed about sources and rules."""
        sources = {described["name"]: described for described in self._sources.describe()}
        layout = {
            name: tuple(sound.name for sound in self._hub.sounds(described["rules"]))
            for name, described in sources.items()
        }
        if layout != self._layout:
            self._lay_out(layout)
        for name, described in sources.items():
            topics = self._node.source(name)
            self._set(topics.availability, ONLINE if described["up"] else OFFLINE)
            self._set(topics.listen, ON if described["enabled"] else OFF)

    def _lay_out(self, layout: dict[str, tuple[str, ...]]) -> None:
        """Publishes sources and sounds anew, and removes those that are gone."""
        before, self._layout = self._layout, layout
        self._slugs = {name: slugs(sounds) for name, sounds in layout.items()}
        for name, sounds in before.items():
            gone = set(slugs(sounds).values()) - set(self._slugs.get(name, {}).values())
            for slug in gone:
                self._forget(name, slug)
            if name not in layout:
                self._forget_source(name)
        for name in layout:
            self._discover(name)
        for name, words in self._slugs.items():
            on = self._on(name)
            for sound, slug in words.items():
                self._set(self._node.source(name).state(slug), ON if sound in on else OFF)

    def _discover(self, name: str) -> None:
        removed = self._removed.setdefault(name, set())
        removed -= set(self._slugs[name].values())
        for topic, message in discovery(
            self._node, name, self._layout[name], removed=sorted(removed)
        ).items():
            self._set(topic, to_json(message))

    def _forget(self, name: str, slug: str) -> None:
        """Removes a sound that is not watched any more."""
        topics = self._node.source(name)
        self._set(topics.state(slug), "")
        self._set(topics.attributes(slug), "")
        self._removed.setdefault(name, set()).add(slug)

    def _forget_source(self, name: str) -> None:
        """Removes a source and the sounds of it that are known to be gone."""
        removed = self._removed.pop(name, set())
        for topic in retained_topics(self._node, name, ()):
            self._set(topic, "")
        for topic in discovery(self._node, name, (), removed=sorted(removed)):
            self._set(topic, "")

    def _on(self, name: str) -> frozenset[str]:
        """Returns the sounds that are heard at a source."""
        for session in self._hub.sessions.values():
            if session.name == name and session.is_of_source:
                return session.on
        return frozenset()

    def _set(self, topic: str, payload: str) -> None:
        """Lets the broker keep a message; "" removes it."""
        if self._retained.get(topic) != payload:
            self._retained[topic] = payload
            self._unsent[topic] = None
            self._has_work.set()

    # ---- The connection.

    async def run(self) -> None:
        """Keeps connected until it is cancelled; then the broker is told that the server stops."""
        self.update()
        # A group waits until its cancelled tasks have ended; `gather` would not.
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._keep_updated())
            tasks.create_task(self._keep_connected())

    async def _keep_updated(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            self.update()

    async def _keep_connected(self) -> None:
        waits = pauses()
        while True:
            began = time.monotonic()
            try:
                await self._connect()
            except aiomqtt.MqttError as error:
                # A broker that hangs is not told that the server stops.
                if (task := asyncio.current_task()) is not None and task.cancelling():
                    raise asyncio.CancelledError from error
                self._tell_failure(_reason(error))
            if time.monotonic() - began > _LASTING:
                waits = pauses()
            await asyncio.sleep(next(waits))

    async def _connect(self) -> None:
        """Is connected until the connection breaks.

        Raises:
          aiomqtt.MqttError: it broke, or could not be made.
        """
        broker = self._broker
        client = aiomqtt.Client(
            broker.host,
            broker.port,
            username=broker.user or None,
            password=broker.password or None,
            # A server that comes back takes its place from one that hangs.
            identifier=f"sat-jax-{self._node.name}",
            will=aiomqtt.Will(self._node.availability, OFFLINE, qos=1, retain=True),
            keepalive=30,
            timeout=_TIMEOUT,
            tls_context=ssl.create_default_context() if broker.is_encrypted else None,
        )
        async with client:
            self._report(f"{broker.shown}: connected")
            self._failure = ""
            await self._subscribe(client)
            self._send_again()
            tasks = [asyncio.create_task(work(client)) for work in (self._listen, self._send)]
            try:
                done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
            except asyncio.CancelledError:
                await _end(tasks)
                await self._say_goodbye(client)
                raise
            finally:
                await _end(tasks)

    async def _say_goodbye(self, client: aiomqtt.Client) -> None:
        with contextlib.suppress(aiomqtt.MqttError, TimeoutError):
            async with asyncio.timeout(_LAST_SECONDS):
                self._set(self._node.availability, OFFLINE)
                await self._send_waiting(client)

    async def _subscribe(self, client: aiomqtt.Client) -> None:
        source = self._node.source("+")
        # States that an earlier run has left are heard here too.
        topics = [source.listen_set, source.state("+")]
        if self._node.prefix:
            topics.append(f"{self._node.prefix}/status")
        await client.subscribe([(topic, 1) for topic in topics])

    def _send_again(self) -> None:
        """Sends all that the broker shall keep."""
        self._levels.clear()
        # Until all is sent, nobody shall take a state of an earlier run for one of this.
        self._retained.pop(self._node.availability, None)
        self._unsent = dict.fromkeys(self._retained)
        self._has_work.set()

    async def _listen(self, client: aiomqtt.Client) -> None:
        async for message in client.messages:
            payload = message.payload.decode(errors="replace")
            self._hear(str(message.topic), payload, is_kept=bool(message.retain))

    def _hear(self, topic: str, payload: str, *, is_kept: bool) -> None:
        if topic == f"{self._node.prefix}/status":
            if payload == ONLINE:
                self._send_again()
            return
        name, *rest = topic.removeprefix(f"{self._node.base}/{self._node.name}/").split("/")
        match rest:
            case ["listen", "set"] if payload in (ON, OFF) and not is_kept:
                self._sources.switch(name, payload == ON)
                self.update()
            case ["sound", slug, "state"] if payload and topic not in self._retained:
                self._forget(name, slug)
                if name in self._layout:
                    self._discover(name)
                else:
                    self._forget_source(name)

    async def _send(self, client: aiomqtt.Client) -> None:
        while True:
            await self._has_work.wait()
            self._has_work.clear()
            await self._send_waiting(client)
            self._set(self._node.availability, ONLINE)

    async def _send_waiting(self, client: aiomqtt.Client) -> None:
        while self._unsent:
            topic = next(iter(self._unsent))
            del self._unsent[topic]
            payload = self._retained[topic]
            await client.publish(topic, payload, qos=1, retain=True)
            if not payload and self._retained.get(topic) == "":
                del self._retained[topic]
        while self._levels:
            topic, payload = self._levels.popitem()
            await client.publish(topic, payload)
        while len(self._events):
            await self._send_event(client, self._events.take())

    async def _send_event(self, client: aiomqtt.Client, event: _Event) -> None:
        if time.monotonic() - event.told > _LATE:
            self._late += 1
            return
        try:
            await client.publish(event.topic, event.payload, qos=1)
        except BaseException:
            self._events.put_back([event])
            raise

    def _tell_failure(self, failure: str) -> None:
        if failure != self._failure:
            self._report(f"{self._broker.shown}: {failure}; tries again")
        self._failure = failure


async def _end(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _reason(error: Exception) -> str:
    """Returns why a connection failed: "Connection refused", "Not authorized", …."""
    return one_line(re.sub(r"^\[(?:Errno |code:)?-?\d+\] ", "", str(error)))
