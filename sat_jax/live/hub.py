"""All streams of a server: opens and ends them, and passes on what they tell."""

import asyncio
import secrets
import time
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from sat_jax.events import EventMessage, WatchedSound, watched_sounds
from sat_jax.events.rules_file import DEFAULT, RulesFile
from sat_jax.live.engine import Engine, EngineLimits, EngineStream, Told
from sat_jax.live.feed import EventFeed
from sat_jax.live.outputs import Closed, Output
from sat_jax.live.session import WEBSOCKET, Session
from sat_jax.stream_runner import StreamRunner
from sat_jax.tags import TagSelection


class Sink(Protocol):
    """Takes what all streams tell, in the event loop's thread, and never waits."""

    def tell(self, session: Session, output: Output) -> None:
        """Takes an output of a stream."""


class Hub:
    """The streams of a server. All methods are for the event loop's thread.

    Attributes:
      engine: scores the streams.
      tagger: the model.
      feed: the events of all streams.
      sessions: the open streams, by id.
      sinks: get all outputs.
      selection: chooses the tags that are shown.
    """

    def __init__(
        self,
        tagger: StreamRunner,
        rules: RulesFile,
        *,
        thresholds: np.ndarray | None = None,
        limits: EngineLimits,
        resume_window: float = 60.0,
    ) -> None:
        """Starts the engine.

        Args:
          tagger: the model.
          rules: what is watched.
          thresholds: float [y], the model's own.
          limits: of the engine.
          resume_window: seconds for which a stream waits for a client that went away.

        Raises:
          SatError: rules do not suit the model.
        """
        self.tagger, self.selection = (
            tagger,
            TagSelection(labels=tagger.labels, k=len(tagger.labels)),
        )
        self.feed = EventFeed()
        self.sessions: dict[str, Session] = {}
        self.sinks: list[Sink] = []
        self.resume_window = resume_window
        self._thresholds = thresholds
        self._by_stream: dict[EngineStream, Session] = {}
        self._left: dict[str, float] = {}
        self._finished: dict[str, tuple[Session, float]] = {}
        self.set_rules(rules)
        self._loop = asyncio.get_running_loop()
        self.engine = Engine(tagger, self._deliver, limits)

    def set_rules(self, rules: RulesFile) -> None:
        """Watches by other rules in streams that begin from here on.

        Raises:
          SatError: they do not suit the model; the old ones stay.
        """
        names = {DEFAULT, *rules.rules}
        watched = {
            name: watched_sounds(rules.named(name), self.tagger.labels, self._thresholds)
            for name in names
        }
        self.rules = rules
        self._watched = watched

    def watch_anew(self) -> None:
        """Watches by the rules of now in all streams, if they have changed."""
        for session in self.sessions.values():
            # A client's rules may be gone; it keeps what it began with.
            session.watch_anew(self._watched.get(session.rules, session.sounds))

    def sounds(self, rules: str = DEFAULT) -> Sequence[WatchedSound]:
        """Returns what the rules of this name watch.

        Raises:
          SatError: there are none.
        """
        self.rules.named(rules)
        return self._watched[rules]

    def open(self, *, rules: str = DEFAULT, **settings: Any) -> Session:
        """Opens a stream, see `Session`.

        Raises:
          SatError: `Overloaded`, or there are no such rules.
        """
        sounds = self.sounds(rules)
        if self._left and self.engine.used >= self.engine.capacity:
            # Who is here comes before who may come back.
            self.close(self.sessions[next(iter(self._left))])
        return self.add(Session(self.engine, sounds, rules=rules, **settings))

    def add(self, session: Session) -> Session:
        """Adds a stream of this hub's engine, and returns it."""
        self.sessions[session.id] = session
        self._by_stream[session.stream] = session
        session.listeners.append(lambda output: self._hear(session, output))
        return session

    def close(self, session: Session) -> None:
        """Ends a stream at once."""
        if session.id in self.sessions:
            session.close()

    @property
    def has_left(self) -> bool:
        """Whether a stream waits for its client."""
        return bool(self._left)

    def leave(self, session: Session) -> None:
        """Lets a stream wait for its client to come back."""
        if session.id in self.sessions:
            self._left[session.id] = time.monotonic()

    def come_back(self, token: str) -> Session | None:
        """Returns the stream of a token, which may have ended lately; None if there is none."""
        finished = [session for session, _ in self._finished.values()]
        for session in (*self.sessions.values(), *finished):
            if secrets.compare_digest(session.token.encode(), token.encode()):
                self._left.pop(session.id, None)
                return session
        return None

    def tick(self) -> None:
        """Does what is due each second."""
        now = time.monotonic()
        for name, since in list(self._left.items()):
            if now - since > self.resume_window:
                del self._left[name]
                self.close(self.sessions[name])
        for name, (_, since) in list(self._finished.items()):
            if now - since > self.resume_window:
                del self._finished[name]
        for session in list(self.sessions.values()):
            session.check_signal()

    async def run(self) -> None:
        """Calls `tick` each second."""
        while True:
            await asyncio.sleep(1.0)
            self.tick()

    def _deliver(self, told: Told) -> None:
        # The loop may be closed while the last step runs.
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._hear_all, told)

    def _hear_all(self, told: Told) -> None:
        for stream, scored in told:
            if session := self._by_stream.get(stream):
                try:
                    session.hear(scored)
                except Exception as error:  # The other streams go on.
                    about = {"message": f"stream {session.id} failed", "exception": error}
                    self._loop.call_exception_handler(about)

    def _hear(self, session: Session, output: Output) -> None:
        if isinstance(output, EventMessage):
            self.feed.publish(session.name, {"stream": session.name} | output.as_json())
        for sink in self.sinks:
            sink.tell(session, output)
        if isinstance(output, Closed):
            self._left.pop(session.id, None)
            self.sessions.pop(session.id, None)
            self._by_stream.pop(session.stream, None)
            if session.source == WEBSOCKET and session.stream.is_ending:
                # Its client may have lost the connection before the last scores.
                self._finished[session.id] = session, time.monotonic()
