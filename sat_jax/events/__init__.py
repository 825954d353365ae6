"""Sound events: from the scores of chunks to "a dog barked from 34 s to 38 s".

`find_events` is the definition, for a whole recording. `EventMachine` gives the same events, chunk
by chunk.
"""

from sat_jax.events.definition import find_events
from sat_jax.events.event import Event, Notice
from sat_jax.events.machine import EventMachine
from sat_jax.events.rules import Rule

__all__ = ["Event", "EventMachine", "Notice", "Rule", "find_events"]
