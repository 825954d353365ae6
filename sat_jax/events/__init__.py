"""Sound events: from the scores of chunks to "a dog barked from 34 s to 38 s".

`find_events` is the definition for one class of a recording, and `EventMachine` gives the same
events chunk by chunk. `EventTracker` follows all watched classes of a stream, and does not tell a
class while one below it is told.
"""

from sat_jax.events.definition import find_events
from sat_jax.events.event import Event, Notice
from sat_jax.events.groups import GROUPS
from sat_jax.events.levels import Level, LevelMeter
from sat_jax.events.machine import EventMachine
from sat_jax.events.message import EventMessage
from sat_jax.events.rules import Rule
from sat_jax.events.tracker import EventTracker
from sat_jax.events.watching import Watch, WatchedSound, watched_sounds

__all__ = [
    "GROUPS",
    "Event",
    "EventMachine",
    "EventMessage",
    "EventTracker",
    "Level",
    "LevelMeter",
    "Notice",
    "Rule",
    "Watch",
    "WatchedSound",
    "find_events",
    "watched_sounds",
]
