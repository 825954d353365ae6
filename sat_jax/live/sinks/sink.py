"""What sinks share: the events they take, a bounded queue, pauses between attempts."""

import asyncio
import collections
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

from sat_jax.events import EventMessage
from sat_jax.live.outputs import Output
from sat_jax.live.session import Session

Report = Callable[[str], None]
"""Receives lines for the user."""

PAUSES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0)
"""Seconds before each further attempt; the last one is repeated."""

_Item = TypeVar("_Item")


@runtime_checkable
class QueuedSink(Protocol):
    """A sink that sends later what it is told.

    Attributes:
      name: for figures and messages.
      waiting: messages to be sent.
      dropped: messages that were thrown away.
    """

    name: str

    @property
    def waiting(self) -> int: ...  # noqa: D102

    @property
    def dropped(self) -> int: ...  # noqa: D102

    def tell(self, session: Session, output: Output) -> None:
        """Takes an output of a stream, and never waits."""

    async def run(self) -> None:
        """Sends until it is cancelled; then it tries once to send what is left."""


class NewestQueue(Generic[_Item]):
    """A queue in which new items push out the oldest ones.

    Attributes:
      dropped: items that were pushed out.
    """

    def __init__(self, size: int) -> None:
        """Starts empty."""
        self.dropped = 0
        self._items = collections.deque[_Item]()
        self._size = size
        self._filled = asyncio.Event()

    def __len__(self) -> int:
        """Returns the number of items."""
        return len(self._items)

    def put(self, item: _Item) -> None:
        """Adds the newest item."""
        self._items.append(item)
        self._drop_oldest()
        self._filled.set()

    def put_back(self, items: Sequence[_Item]) -> None:
        """Adds items that were taken, before all others."""
        self._items.extendleft(reversed(items))
        self._drop_oldest()
        if self._items:
            self._filled.set()

    async def wait(self) -> None:
        """Waits until there is an item."""
        await self._filled.wait()

    def take(self) -> _Item:
        """Removes and returns the oldest item."""
        item = self._items.popleft()
        if not self._items:
            self._filled.clear()
        return item

    def take_all(self) -> list[_Item]:
        """Removes and returns all items, oldest first."""
        items = list(self._items)
        self._items.clear()
        self._filled.clear()
        return items

    def _drop_oldest(self) -> None:
        while len(self._items) > self._size:
            self._items.popleft()
            self.dropped += 1


def pauses() -> Iterator[float]:
    """Yields the seconds before each further attempt."""
    return itertools.chain(PAUSES, itertools.repeat(PAUSES[-1]))


def live_event(session: Session, output: Output) -> dict[str, Any] | None:
    """Returns the JSON object of an event; None for other outputs.

    Events of recordings are no news: whoever sends a recording gets them as an answer.
    """
    if not isinstance(output, EventMessage) or session.pace != "realtime":
        return None
    return {"stream": session.name} | output.as_json()
