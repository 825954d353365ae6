"""Sounds with a beginning and an end (floor 0)."""

from typing import NamedTuple


class Event(NamedTuple):
    """A sound in a clip, as a person labelled it.

    Attributes:
      class_index: its class's place among the model's outputs.
      onset: where it begins, seconds from the clip's start, >= 0.
      offset: where it ends, seconds; > onset.
    """

    class_index: int
    onset: float
    offset: float
