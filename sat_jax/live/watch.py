"""A stream for those who watch it: what was told of it lately, then what is told."""

import asyncio
from typing import Any, Self

from sat_jax.events import EventMessage
from sat_jax.live.outputs import Closed, LostSound, Output, Scores
from sat_jax.live.protocol import Want
from sat_jax.live.session import Session
from sat_jax.tags import TagSelection

_QUEUE = 1000
"""Messages that wait for a watcher that does not read."""


class Watcher:
    """Messages about a stream, while the context lasts.

    The first one is "started". Then come "scores", "event", "gap" and "closed"; times are seconds
    of the stream.

    Attributes:
      is_over: whether nothing more will come: the stream has ended, or the watcher did not read.
    """

    def __init__(self, session: Session, selection: TagSelection, *, k: int) -> None:
        """Begins with what the stream told lately.

        Args:
          session: the stream.
          selection: chooses the tags that are shown.
          k: the most tags of a chunk.
        """
        self.is_over = False
        self._session, self._selection, self._want = session, selection, Want(k=k)
        self._queue = asyncio.Queue[dict[str, Any]](_QUEUE)
        about = {"session": session.id, "name": session.name, "source": session.source}
        self._queue.put_nowait({"type": "started"} | about)
        for output in session.history:
            self._hear(output)

    def __enter__(self) -> Self:
        """Begins to listen."""
        self._session.listeners.append(self._hear)
        return self

    def __exit__(self, *_: object) -> None:
        """Listens no longer."""
        self._session.listeners.remove(self._hear)

    async def get(self) -> dict[str, Any]:
        """Waits for the next message, JSON-ready."""
        message = await self._queue.get()
        self.is_over = self.is_over or message["type"] == "closed"
        return message

    def _hear(self, output: Output) -> None:
        if (message := self._message(output)) is None:
            return
        try:
            self._queue.put_nowait(message)
        except asyncio.QueueFull:
            self.is_over = True

    def _message(self, output: Output) -> dict[str, Any] | None:
        if isinstance(output, Scores):
            return output.as_json(self._want, self._selection)
        if isinstance(output, EventMessage):
            return output.as_json()
        if isinstance(output, LostSound):
            times = {"start": round(output.start, 6), "end": round(output.end, 6)}
            return {"type": "gap", "reason": output.reason} | times
        if isinstance(output, Closed):
            return {"type": "closed", "chunks": output.chunks}
        return None
