"""The probabilities of a chunk, and its tags."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from sat_jax.errors import SatError
from sat_jax.labels import default_label_names
from sat_jax.tags import Tag, TagSelection


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class ScoredChunk:
    """A part of a recording and the probability of each class in it.

    Attributes:
      start: start of the chunk, seconds from the start of the recording.
      end: end of the chunk, seconds.
      probs: float32 [y], the probability of each class.
      labels: [y] names of the classes; empty for `default_label_names`.
      embedding: float32 [d], the pooled features before the classifier; None without
        ``embeddings=True`` (`sat_jax.Tagger`).
    """

    start: float
    end: float
    probs: np.ndarray
    labels: Sequence[str] = ()
    embedding: np.ndarray | None = None

    def __repr__(self) -> str:
        """Shows the times, the number of classes and the most probable one."""
        top = int(np.argmax(self.probs))
        return (
            f"ScoredChunk(start={self.start:g}, end={self.end:g}, "
            f"probs=[{len(self.probs)} classes, highest {self.probs[top]:.3f} at {top}])"
        )

    def tags(
        self,
        k: int = 3,
        *,
        threshold: float | np.ndarray | None = None,
        only: Sequence[str] = (),
        without: Sequence[str] = (),
    ) -> list[Tag]:
        """Returns the most probable classes, strongest first.

        Args:
          k: the most tags.
          threshold: the least probability in [0, 1], one for all classes or [y].
          only: the only classes that may be tags, see `sat_jax.labels.select_classes`.
          without: classes that are never tags.

        Raises:
          SatError: see `sat_jax.tags.TagSelection`.
        """
        labels = self.labels or default_label_names(len(self.probs))
        selection = TagSelection(
            labels=labels, k=k, threshold=threshold, only=only, without=without
        )
        return selection.tags(self.probs)


def check_finite(probs: np.ndarray) -> np.ndarray:
    """Returns probabilities unchanged if all are finite.

    Raises:
      SatError: one is NaN or infinite.
    """
    if not np.isfinite(probs).all():
        raise SatError("scores are not finite: the weights are damaged, use another model")
    return probs
