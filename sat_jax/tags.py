"""Chooses the tags of a chunk from its probabilities."""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

from sat_jax.errors import SatError
from sat_jax.labels import audioset_ids, select_classes


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tag:
    """A class that was detected in a chunk.

    Attributes:
      index: the class's index in the model's output.
      label: its display name.
      prob: its probability: the shortest decimal that reads back as the same float32.
      mid: its AudioSet id, such as "/m/0bt9lr"; "" for a class that is not AudioSet's.
    """

    index: int
    label: str
    prob: float
    mid: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class TagSelection:
    """Chooses the tags of a chunk.

    Attributes:
      labels: [y] display names.
      k: the most tags per chunk, at least 1.
      threshold: the least probability of a tag in [0, 1], one for all classes or [y] per class;
        None for no threshold.
      only: the only classes that may be tags; empty for all, see `sat_jax.labels.select_classes`.
      without: classes that are never tags.

    Raises:
      SatError: `k` or `threshold` is out of range or has the wrong shape, or a class is unknown.
    """

    labels: Sequence[str]
    k: int = 3
    threshold: float | np.ndarray | None = None
    only: Sequence[str] = ()
    without: Sequence[str] = ()

    def __post_init__(self) -> None:
        """Checks the values."""
        if self.k < 1:
            raise SatError(f"k={self.k} is too small: use at least 1")
        if self.threshold is not None:
            _check_threshold(np.asarray(self.threshold), len(self.labels))
        _ = self.classes  # Unknown classes are reported now.

    @functools.cached_property
    def classes(self) -> np.ndarray:
        """Indices of the classes that may be tags, ascending."""
        return np.array(select_classes(self.labels, only=self.only, without=self.without))

    @functools.cached_property
    def _mids(self) -> tuple[str, ...]:
        return audioset_ids(self.labels)

    def tags(self, probs: np.ndarray) -> list[Tag]:
        """Returns the strongest classes that reach their threshold.

        Args:
          probs: [y] probabilities.

        Returns:
          At most `k` tags, strongest first. Of equals, the lower class index is first.

        Raises:
          SatError: `probs` does not have a value per label.
        """
        probs = np.asarray(probs, np.float32)
        if probs.shape != (len(self.labels),):
            raise SatError(
                f"scores of shape {probs.shape} do not match {len(self.labels)} labels: use the "
                "labels of this model"
            )
        # Compared as float32, so that a probability printed as 0.3 reaches a threshold of 0.3.
        least = -np.inf if self.threshold is None else self.threshold
        passing = self.classes[(probs >= np.asarray(least, np.float32))[self.classes]]
        strongest = passing[np.argsort(-probs[passing], kind="stable")][: self.k]
        return [
            Tag(
                index=int(i),
                label=self.labels[i],
                prob=float(str(probs[i])),
                mid=self._mids[i],
            )
            for i in strongest
        ]


def _check_threshold(threshold: np.ndarray, num_classes: int) -> None:
    if threshold.shape not in ((), (num_classes,)):
        raise SatError(
            f"thresholds of shape {threshold.shape} do not match {num_classes} classes: use one "
            "for all classes, or one per class"
        )
    if not np.all((threshold >= 0.0) & (threshold <= 1.0)):
        raise SatError(f"threshold={threshold} is not a probability: use a number from 0 to 1")
