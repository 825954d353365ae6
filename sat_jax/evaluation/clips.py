"""Labelled clips as an evaluation needs them."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from sat_jax.errors import SatError
from sat_jax.labels import Event

Sound = np.ndarray | SatError
"""A clip's samples, or why there are none."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class LabeledClips:
    """Clips and what is heard in them; places are counted from 0.

    Attributes:
      ids: names of n clips.
      labels: n times the indices of the classes heard in it.
      read: from places of clips to each of them and its samples float32 [s] at the model's rate,
        in order.
      description: JSON-ready data that differs between sources: scores of one are never taken for
        those of another.
      versions: int64 [n], each changes when its recording does: then older scores don't count.
      events: what is heard when, by clip, of the clips for which that is known.
    """

    ids: Sequence[str]
    labels: Sequence[Sequence[int]]
    read: Callable[[Sequence[int]], Iterator[tuple[int, Sound]]]
    description: Mapping[str, object]
    versions: np.ndarray
    events: Mapping[int, Sequence[Event]] = dataclasses.field(default_factory=dict)

    def place_of(self, name: str) -> int:
        """Where the clip of a name stands.

        Raises:
          SatError: no clip is called so.
        """
        place = next((place for place, each in enumerate(self.ids) if each == name), None)
        if place is None:
            raise SatError(
                f"no clip is called {name}, the first one is {self.ids[0]}: give another name"
            )
        return place

    def targets(self, num_classes: int) -> np.ndarray:
        """The labels as bool [n, y].

        Raises:
          SatError: a label is no class of the model.
        """
        targets = np.zeros((len(self.labels), num_classes), bool)
        for row, classes in zip(targets, self.labels, strict=True):
            for index in classes:
                if not 0 <= index < num_classes:
                    raise SatError(
                        f"label {index} is none of the model's classes 0 to {num_classes - 1}: "
                        "give labels made for this model"
                    )
                row[index] = True
        return targets
