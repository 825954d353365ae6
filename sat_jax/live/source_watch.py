"""Cameras and microphones of a server: a thread each, which feeds its stream."""

import asyncio
import concurrent.futures
import contextlib
import dataclasses
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import numpy as np

from sat_jax.errors import SatError
from sat_jax.events.event import Reason
from sat_jax.events.rules_file import DEFAULT
from sat_jax.live.engine import Overloaded
from sat_jax.live.hub import Hub
from sat_jax.live.session import Session
from sat_jax.live.sources.open_source import open_source
from sat_jax.live.sources.source import Gap, Source, SourceStatus

_LONGEST_GAP = 10.0
"""Seconds of lost sound that silence replaces. After longer ones a new stream begins."""

_WAIT_FOR_ROOM = 1.0
"""Seconds after which a source asks again for a stream, when all are taken."""

_WAIT_FOR_STEPS = 0.05
"""Seconds after which a source that sends too fast looks whether it may go on."""

_Result = TypeVar("_Result")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SourceSettings:
    """A source.

    Attributes:
      url: see `sat_jax.live.sources.source.open_source`.
      rules: name of the rules for it.
      channel: the channel that is heard; None for the mean of all.
      enabled: whether it is heard from the start.
    """

    url: str
    rules: str = DEFAULT
    channel: int | None = None
    enabled: bool = True


_SILENT = "only silence comes"


class _LoopEnded(Exception):
    """The server has stopped."""


class _Running:
    """A source that is heard."""

    def __init__(self, source: Source, thread: threading.Thread) -> None:
        self.source, self.thread = source, thread


def check_sources(settings: Mapping[str, SourceSettings]) -> None:
    """Checks addresses and channels; connects to nothing.

    Raises:
      SatError: one is wrong, or a program that it needs is not installed.
    """
    for name, source in settings.items():
        with _named(name):
            open_source(source.url, channel=source.channel)


@contextlib.contextmanager
def _named(source: str) -> Iterator[None]:
    """Names the source in errors."""
    try:
        yield
    except SatError as error:
        raise SatError(f"sources.{source}: {error}") from error


class SourceWatch:
    """Hears all sources. All methods are for the event loop's thread."""

    def __init__(self, hub: Hub, settings: Mapping[str, SourceSettings]) -> None:
        """Checks the sources, and hears those that are enabled.

        Args:
          hub: has the streams.
          settings: the sources by name.

        Raises:
          SatError: an address is wrong, or there are no such rules.
        """
        self._hub, self._loop = hub, asyncio.get_running_loop()
        self._settings: dict[str, SourceSettings] = {}
        self._running: dict[str, _Running] = {}
        self._errors: dict[str, str] = {}
        self.set(settings)

    def set(self, settings: Mapping[str, SourceSettings]) -> None:
        """Hears these sources from now on; those that are the same go on.

        Raises:
          SatError: an address is wrong, or there are no such rules; then nothing changes.
        """
        check_sources(settings)
        for name, source in settings.items():
            with _named(name):
                self._hub.sounds(source.rules)
        before, self._settings = self._settings, dict(settings)
        for name in before.keys() - settings.keys():
            self._stop(name)
        for name, new in settings.items():
            if before.get(name) != new:
                self._stop(name)
                if new.enabled:
                    self._start(name)

    def switch(self, name: str, enabled: bool) -> bool:
        """Hears a source, or no longer; returns whether there is one of this name."""
        if name not in self._settings:
            return False
        if enabled and name not in self._running:
            self._start(name)
        elif not enabled:
            self._stop(name)
        return True

    def stop(self) -> None:
        """Stops all sources."""
        for name in list(self._running):
            self._stop(name)

    async def run(self, report: Callable[[str], object]) -> None:
        """Reports each second which sources have failed, and which are back."""
        told: dict[str, str] = {}
        while True:
            for each in self.describe():
                name = each["name"]
                problem = each["error"] or (_SILENT if each["silent"] else "")
                if problem and problem != told.get(name):
                    report(f"sources.{name}: {problem}")
                    told[name] = problem
                elif name in told and (each["up"] or not each["enabled"]) and not problem:
                    del told[name]
                    if each["up"]:
                        report(f"sources.{name}: sound comes again")
            await asyncio.sleep(1.0)

    def describe(self) -> list[dict[str, Any]]:
        """Returns the state of each source, JSON-ready."""
        return [self._describe(name) for name in self._settings]

    def _describe(self, name: str) -> dict[str, Any]:
        running = self._running.get(name)
        status = SourceStatus() if running is None else running.source.status
        described = {"name": name, "enabled": running is not None}
        described |= {"rules": self._settings[name].rules, "up": status.up}
        described |= {"restarts": status.restarts, "silent": status.silent}
        return described | {"error": self._errors.get(name, "") or status.error}

    def _start(self, name: str) -> None:
        settings = self._settings[name]
        source = open_source(settings.url, channel=settings.channel)
        self._errors.pop(name, None)
        thread = threading.Thread(
            target=self._run, args=(name, settings, source), name=f"source {name}", daemon=True
        )
        self._running[name] = _Running(source, thread)
        thread.start()

    def _stop(self, name: str) -> None:
        if running := self._running.pop(name, None):
            running.source.stop()

    # ---- In the source's thread.

    def _run(self, name: str, settings: SourceSettings, source: Source) -> None:
        with contextlib.suppress(_LoopEnded):
            self._hear(name, settings, source)

    def _hear(self, name: str, settings: SourceSettings, source: Source) -> None:
        session: Session | None = None
        reason: Reason = "closed"
        open_at = 0.0
        try:
            for item in source.sound(self._hub.engine.rate):
                if isinstance(item, Gap) and item.seconds >= _LONGEST_GAP:
                    self._end(session, "gap")
                    session = None
                elif isinstance(item, Gap):
                    if session is not None:
                        session.lose(item.seconds)
                else:
                    if session is None and time.monotonic() >= open_at:
                        session = self._open(name, settings)
                        open_at = time.monotonic() + _WAIT_FOR_ROOM
                    if session is not None:
                        session.push(np.asarray(item))
                        while session.is_flooded:
                            time.sleep(_WAIT_FOR_STEPS)
            reason = "disabled"
        except SatError as error:
            self._errors[name] = str(error)
        self._end(session, reason)

    def _open(self, name: str, settings: SourceSettings) -> Session | None:
        """Opens a stream; returns None if all are taken."""
        kind = settings.url.partition(":")[0]
        try:
            session = self._in_loop(
                lambda: self._hub.open(
                    rules=settings.rules,
                    name=name,
                    source=kind,
                    rate=self._hub.engine.rate,
                    phase="spread",
                    skips_first=True,
                )
            )
        except Overloaded as error:
            self._errors[name] = str(error)
            return None
        self._errors.pop(name, None)
        return session

    def _end(self, session: Session | None, reason: Reason) -> None:
        if session is None:
            return

        def end() -> None:
            session.end_events(reason)
            self._hub.close(session)

        self._in_loop(end)

    def _in_loop(self, work: Callable[[], _Result]) -> _Result:
        """Runs something in the event loop's thread, and returns its result."""
        done = concurrent.futures.Future[_Result]()

        def run() -> None:
            try:
                done.set_result(work())
            except Exception as error:
                done.set_exception(error)

        try:
            self._loop.call_soon_threadsafe(run)
        except RuntimeError as error:
            raise _LoopEnded from error
        return done.result()
