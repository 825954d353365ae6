"""Follows all watched sounds of one stream: chunks in, messages out."""

import math
from collections.abc import Callable, Sequence
from datetime import datetime

import numpy as np

from sat_jax.events.event import Notice, Reason
from sat_jax.events.folding import FoldedMachine
from sat_jax.events.levels import Level
from sat_jax.events.message import EventMessage
from sat_jax.events.watching import LOUD, WatchedSound

UPDATE_EVERY = 10.0
"""Seconds between messages about an event that goes on."""

Clock = Callable[[float], datetime | None]
"""The date and time of a second of the stream."""


class EventTracker:
    """The events of one stream."""

    def __init__(
        self,
        sounds: Sequence[WatchedSound],
        *,
        session: str,
        sample_rate: int,
        clock: Clock = lambda _: None,
        shortest: float = 0.0,
    ) -> None:
        """Starts at the begin of a stream.

        Args:
          sounds: from `watched_sounds`.
          session: begins the ids of the stream's events.
          sample_rate: of the stream, Hz, for the ids.
          clock: tells dates and times, if known.
          shortest: seconds; shorter chunks make no event, because they are mostly padding.
        """
        self._shortest = shortest
        self._sounds, self._session, self._rate, self._clock = sounds, session, sample_rate, clock
        self._numbers = {sound.name: number for number, sound in enumerate(sounds)}
        self._below: list[list[int]] = [[] for _ in sounds]
        for number, sound in enumerate(sounds):
            for name in sound.above:
                self._below[self._numbers[name]].append(number)
        # Most classes are never heard.
        self._machines: dict[int, FoldedMachine] = {}
        self._scored = [number for number, sound in enumerate(sounds) if sound.classes]
        self._places = {number: place for place, number in enumerate(self._scored)}
        self._members = np.concatenate(
            [np.zeros(0, int), *(sounds[number].classes for number in self._scored)]
        ).astype(int)
        lengths = [len(sounds[number].classes) for number in self._scored]
        self._firsts = np.cumsum([0, *lengths[:-1]]) if lengths else np.zeros(0, int)
        self._on = np.array([sounds[number].rule.on for number in self._scored], np.float32)
        self._smoothed = {number for number, s in enumerate(sounds) if s.rule.smooth > 1}
        self._busy: set[int] = set(self._smoothed)
        self._last_ids: dict[int, str] = {}
        self._heard_above: dict[int, tuple[str, ...]] = {}
        self._times: dict[str, str] = {}
        self._chunk_length = self._block_length = 0.0

    @property
    def on(self) -> frozenset[str]:
        """Names of the sounds that are heard, folded or not."""
        return frozenset(
            self._sounds[number].name
            for number in self._busy
            if number in self._machines and self._machines[number].is_on
        )

    @property
    def unfinished_since(self) -> float:
        """No event that is still to end starts before this second; inf if there is none."""
        busy = (self._machines[number] for number in self._busy if number in self._machines)
        return min((machine.since for machine in busy), default=math.inf)

    def push(self, start: float, end: float, probs: np.ndarray) -> list[EventMessage]:
        """Takes the next chunk of the stream.

        Args:
          start: seconds; the end of the chunk before.
          end: seconds.
          probs: float32 [y], the probability of each class.
        """
        if not self._scored or end - start < self._shortest:
            return []
        # The last chunk is often shorter.
        self._chunk_length = max(self._chunk_length, end - start)
        scores = np.maximum.reduceat(probs[self._members], self._firsts)
        heard = {self._scored[place] for place in np.flatnonzero(scores >= self._on).tolist()}
        numbers = sorted((heard | self._busy) & self._places.keys())
        for number in heard:
            above = self._sounds[number].above
            self._heard_above[number] = tuple(n for n in above if self._numbers[n] in heard)
        told = []
        self._forget_step()
        for number in numbers:
            machine = self._machine(number)
            notices = machine.push(start, end, float(scores[self._places[number]]))
            told += [(number, notice) for notice in notices]
        self._note_idle(numbers)
        return [self._message(number, notice, end) for number, notice in told]

    def push_level(self, level: Level) -> list[EventMessage]:
        """Takes the level of the next 0.1 s, for the sound "loud"."""
        number = self._numbers.get(LOUD)
        if number is None:
            return []
        self._block_length = level.end - level.start
        notices = self._machine(number).push(level.start, level.end, level.rms)
        self._note_idle([number])
        return [self._message(number, notice, level.end) for notice in notices]

    def finish(self, now: float, reason: Reason = "closed") -> list[EventMessage]:
        """Ends all events. Chunks that follow are a new beginning.

        Args:
          now: end of the last chunk, seconds.
          reason: why they end.
        """
        numbers, told = sorted(self._busy & self._machines.keys()), []
        self._forget_step()
        for number in numbers:
            told += [(number, notice) for notice in self._machines[number].finish(reason)]
        self._note_idle(numbers)
        return [self._message(number, notice, now) for number, notice in told]

    def _machine(self, number: int) -> FoldedMachine:
        if number not in self._machines:
            below = [self._machine(other) for other in self._below[number]]
            rule = self._sounds[number].rule
            self._machines[number] = FoldedMachine(rule, below, UPDATE_EVERY)
        return self._machines[number]

    def _forget_step(self) -> None:
        for machine in self._machines.values():
            machine.forget_step()

    def _note_idle(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            if self._machines[number].is_idle:
                self._busy.discard(number)
            else:
                self._busy.add(number)

    def _message(self, number: int, notice: Notice, now: float) -> EventMessage:
        sound, event, kind = self._sounds[number], notice.event, notice.kind
        name = f"{self._session}.{round(event.start * self._rate)}.{sound.key}"
        message = EventMessage(
            kind=kind,
            id=name,
            label=sound.name,
            index=sound.index,
            mid=sound.mid,
            start=event.start,
            end=event.end,
            time=self._times.setdefault(name, self._time(event.start)),
            resolution=self._chunk_length if sound.classes else self._block_length,
            delay=now - event.start,
            score=event.score,
            peak=event.peak,
            mean=event.mean,
            chunks=event.chunks,
            parents=self._heard_above.get(number, ()),
            reason=event.reason or "",
            by=self._interrupting(number) if event.reason == "refined" else "",
            continues=self._last_ids.get(number, "") if event.continues else "",
            muted=event.muted,
        )
        if kind == "end":
            self._last_ids[number] = name
            del self._times[name]
        return message

    def _time(self, second: float) -> str:
        time = self._clock(second)
        return time.isoformat(timespec="milliseconds") if time else ""

    def _interrupting(self, number: int) -> str:
        below = [n for n in self._below[number] if self._machines[n].interrupting()]
        return self._sounds[below[0]].name if below else ""
