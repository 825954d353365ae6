"""Classes above others: a dog's bark is told once, not as Bark, Dog and Animal.

A chunk is covered if an event of a class below it is going on there: it is not before the chunk
with which that event was announced, nor after its end. A class has the events that `find_events`
finds in each part without covered chunks. One that is interrupted by a covered chunk is "refined".
"""

import collections
import dataclasses
import math
from collections.abc import Sequence

from sat_jax.events.event import Event, Notice, Reason
from sat_jax.events.machine import EventMachine
from sat_jax.events.rules import Rule


@dataclasses.dataclass
class _Chunk:
    start: float
    end: float
    score: float
    is_covered: bool = False

    def is_in(self, event: Event) -> bool:
        return event.announced <= self.end and self.start < event.end


class FoldedMachine:
    """Follows one class of one stream, outside of the events of classes below it.

    A chunk waits while it may still fall into a short gap of an event below.
    """

    def __init__(self, rule: Rule, below: Sequence["FoldedMachine"], update_every: float) -> None:
        """Starts at the begin of a stream.

        Args:
          rule: of the class.
          below: the classes below it; each gets a chunk before this one does.
          update_every: see `EventMachine`.
        """
        self._machine = EventMachine(rule, update_every=update_every)
        self._below = below
        # Whether the class is on does not depend on those below it.
        self._state = EventMachine(rule) if below else self._machine
        self._waiting = collections.deque[_Chunk]()
        self._touched: list[Event] = []

    @property
    def is_idle(self) -> bool:
        """Whether a chunk with a score under `on` would change nothing."""
        return not self._waiting and self._machine.is_idle and self._state.is_idle

    @property
    def is_on(self) -> bool:
        """Whether the class is heard, whatever the classes below it do."""
        return self._state.event is not None

    @property
    def since(self) -> float:
        """No event that is still to end starts before this second."""
        waiting = self._waiting[0].start if self._waiting else math.inf
        return min(waiting, self._machine.since)

    def push(self, start: float, end: float, score: float) -> list[Notice]:
        """Takes the next chunk, see `EventMachine.push`."""
        if not self._below:
            return self._touch(self._machine.push(start, end, score))
        self._state.push(start, end, score)
        self._waiting.append(_Chunk(start, end, score))
        return self._touch(self._follow())

    def finish(self, reason: Reason) -> list[Notice]:
        """Ends a running event, see `EventMachine.finish`. Those below must have ended."""
        if self._below:
            self._state.finish(reason)
        return self._touch([*self._follow(), *self._machine.finish(reason)])

    def forget_step(self) -> None:
        """Forgets which events the last chunk touched. All classes do so before the next one."""
        self._touched = []

    def interrupting(self) -> bool:
        """Whether an event is going on, or changed with this chunk."""
        return bool(self._touched)

    @property
    def _may_cover_more(self) -> bool:
        return bool(self._waiting) or self._machine.event is not None

    def _touch(self, notices: list[Notice]) -> list[Notice]:
        going_on = [self._machine.event] if self._machine.event else []
        self._touched = [*(notice.event for notice in notices), *going_on]
        return notices

    def _follow(self) -> list[Notice]:
        """Passes on the chunks of which it is certain whether they are covered."""
        events = [event for machine in self._below for event in machine._touched]
        uncertain = any(machine._may_cover_more for machine in self._below)
        notices: list[Notice] = []
        for chunk in self._waiting:
            chunk.is_covered = chunk.is_covered or any(map(chunk.is_in, events))
        while self._waiting and (self._waiting[0].is_covered or not uncertain):
            chunk = self._waiting.popleft()
            if chunk.is_covered:
                notices += self._machine.finish("refined")
            else:
                notices += self._machine.push(chunk.start, chunk.end, chunk.score)
        return notices
