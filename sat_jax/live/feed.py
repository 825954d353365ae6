"""The events of all streams, for those who listen to them: a ring, and queues of subscribers."""

import asyncio
import collections
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

_KEPT = 10_000
_QUEUE = 1000


class Entry(NamedTuple):
    """An event's message.

    Attributes:
      number: counts all messages of this server's run, from 1.
      stream: name of its stream.
      message: JSON-ready.
    """

    number: int
    stream: str
    message: dict[str, Any]


class Subscription:
    """What a subscriber has not read yet."""

    def __init__(self, waiting: list[Entry]) -> None:
        """Begins with older entries."""
        self._queue = asyncio.Queue[Entry](_QUEUE)
        self._older = collections.deque(waiting)
        self.is_late = False

    def put(self, entry: Entry) -> None:
        """Takes a new entry; a subscriber that does not read is late."""
        try:
            self._queue.put_nowait(entry)
        except asyncio.QueueFull:
            self.is_late = True

    async def get(self) -> Entry:
        """Waits for the next entry."""
        return self._older.popleft() if self._older else await self._queue.get()


class EventFeed:
    """Keeps the newest 10 000 messages."""

    def __init__(self) -> None:
        """Starts empty."""
        self._entries = collections.deque[Entry](maxlen=_KEPT)
        self._subscriptions: set[Subscription] = set()
        self._count = 0

    def publish(self, stream: str, message: dict[str, Any]) -> None:
        """Adds a message."""
        self._count += 1
        entry = Entry(self._count, stream, message)
        self._entries.append(entry)
        for subscription in self._subscriptions:
            subscription.put(entry)

    @contextmanager
    def subscribe(self, after: int | None = None) -> Iterator[Subscription]:
        """Subscribes.

        Args:
          after: number of the last entry that the subscriber has; None begins with the next one.
        """
        # A number that is not reached yet is of an earlier run: all of this one is new.
        after = 0 if after is not None and after > self._count else after
        older = [] if after is None else [entry for entry in self._entries if entry.number > after]
        subscription = Subscription(older)
        self._subscriptions.add(subscription)
        try:
            yield subscription
        finally:
            self._subscriptions.discard(subscription)
